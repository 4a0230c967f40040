"""The derived numbers of a plan, each with the sum or the reason behind it, as functions of opened inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuning.core.errors import Notice, counted
from tuning.data import DataSummary, read_first
from tuning.methods import method_named
from tuning.models.base_model import BaseModel
from tuning.plan.checks import measure_prompts, method_problems, packing_lacks, prompt_problems
from tuning.plan.inputs import PlanInputs, class_count
from tuning.settings.optimizers import optimizer_named
from tuning.settings.schema import WRITTEN_METRICS, Settings
from tuning.text.prompts import PromptLengths, longest_prompt, question_ids

MANY_EPOCHS = 20
"""A run that goes over its rows more often than this gets a notice."""
EVALUATION_SHARE = 0.1
"""The share of the tokens of training that evaluations may read where eval.every is left to the plan."""
SHORTER = "shorter_"
"""The prefix of the names of numbers about shorter prompts that were not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A number nobody typed, and the sum or the reason behind it."""

    value: float
    origin: str


def derive(inputs: PlanInputs, prompts: PromptLengths | None = None) -> dict[str, Derived]:
    """All derived numbers by name. `prompts` measures the rows that a method without updates writes."""
    return (
        _update_numbers(inputs)
        | parameter_numbers(inputs.settings, inputs.model, inputs.summary)
        | (_prompt_numbers(inputs, prompts) | _shorter_prompt_numbers(inputs))
    )


def _update_numbers(inputs: PlanInputs) -> dict[str, Derived]:
    """Sizes and counts of the run's updates."""
    settings, data = inputs.settings, inputs.summary
    micro, steps, devices = (settings.micro_batch_size, settings.gradient_accumulation_steps, settings.num_devices)
    effective = micro * steps * devices
    per_epoch = math.ceil(data.train_rows / effective)
    numbers = {"effective_batch": Derived(value=effective, origin=f"{effective} = {micro} x {steps} x {devices}")}
    rows = f"{counted(data.train_rows, 'row')} / {effective} a step, the last one smaller where it does not divide"
    numbers["updates_per_epoch"] = Derived(value=per_epoch, origin=rows)
    if settings.max_steps is not None:
        total = Derived(value=settings.max_steps, origin="max_steps")
    else:
        updates_of_epochs = math.ceil((settings.num_epochs or 0) * per_epoch)
        epochs = f"{settings.num_epochs:g} {'epoch' if settings.num_epochs == 1 else 'epochs'}"
        total = Derived(value=max(1, updates_of_epochs), origin=f"{epochs} x {counted(per_epoch, 'update')}")
    numbers["total_steps"] = total
    updates, mean = counted(total.value, "update"), sum(data.lengths) / len(data.lengths)
    numbers["epochs"] = Derived(value=total.value / per_epoch, origin=f"{updates} / {per_epoch} an epoch")
    update_rows = min(effective, data.train_rows)
    rows_of_update = counted(update_rows, "row")
    numbers["tokens_per_update"] = Derived(
        value=mean * update_rows, origin=f"{rows_of_update} x {mean:.1f} tokens on average"
    )
    learned = sum(data.trained_tokens) / len(data.trained_tokens)
    numbers["trained_tokens_per_update"] = Derived(
        value=learned * update_rows, origin=f"{rows_of_update} x {learned:.1f} labels on average"
    )
    numbers["total_tokens"] = Derived(
        value=mean * update_rows * total.value, origin=f"{mean * update_rows:,.0f} tokens x {updates}"
    )
    by_recipe = "" if settings.recipe is None else "; as the recipe writes it at its longest"
    widest = min(data.longest, settings.data.max_seq_length)
    numbers["packing"] = _packing(settings, inputs.model)
    numbers["eval_every"] = _evaluation_interval(settings, data, mean * update_rows, int(total.value))
    numbers["widest_length"] = Derived(value=widest, origin=data.longest_origin + by_recipe)
    return numbers


def _packing(settings: Settings, model: BaseModel) -> Derived:
    """data.packing, and what null becomes: joined where attention keeps rows apart without storing a mask."""
    if settings.data.packing is not None:
        return Derived(value=settings.data.packing, origin="data.packing")
    if settings.attention not in ("flex", "flash"):
        why = f"padded: {settings.attention} would store a mask over all rows of a micro-batch to keep them apart"
        return Derived(value=False, origin=why)
    lacks = packing_lacks(settings, model)
    return Derived(value=lacks is None, origin=f"padded: {lacks}" if lacks else f"joined: {settings.attention}")


def _evaluation_interval(settings: Settings, data: DataSummary, tokens: float, total_steps: int) -> Derived:
    """eval.every, and what null becomes: the smallest interval whose evaluation reads at most a tenth of the `tokens`
    that its updates read."""
    if settings.eval.every is not None:
        return Derived(value=settings.eval.every, origin="eval.every")
    if not data.eval_rows:
        return Derived(value=total_steps, origin="no rows to evaluate on")
    lengths = data.eval_lengths or data.lengths
    read = data.eval_rows * sum(lengths) / len(lengths)
    every = math.ceil(read / (EVALUATION_SHARE * tokens))
    origin = f"{read:,.0f} tokens an evaluation / ({EVALUATION_SHARE:g} x {tokens:,.0f} tokens an update), rounded up"
    return Derived(value=every, origin=origin)


def _prompt_numbers(inputs: PlanInputs, prompts: PromptLengths | None) -> dict[str, Derived]:
    """Lengths in tokens of the prompts that the model answers, which max_seq_length does not cut."""
    settings, numbers = inputs.settings, dict[str, Derived]()
    method = method_named(settings.method.name)
    if prompts is not None:
        words = f"of {prompts.rows:,} evaluation rows as {method.title} writes them"
        numbers["prompted_length"] = Derived(value=prompts.row, origin=f"the longest {words}, in tokens")
        numbers["prompted_labels"] = Derived(value=prompts.labels, origin=f"the most label tokens {words}")
    if WRITTEN_METRICS & set(settings.metrics) and inputs.summary.eval_rows:
        answered = _answered_length(inputs, prompts)
        if answered is not None:
            numbers["answered_length"] = answered
    longest_question = inputs.summary.asked_length
    if method.queries_base_model(settings.method):
        longest_question = prompts.prompt if prompts is not None else 0
    if longest_question:
        words = "the longest question that the model answers before rows are written, in tokens"
        numbers["asked_length"] = Derived(value=longest_question, origin=words)
    sample = _sample_length(inputs) if method.updates else None  # a run without updates answers no samples
    return numbers if sample is None else numbers | {"sample_length": sample}


def _answered_length(inputs: PlanInputs, prompts: PromptLengths | None) -> Derived | None:
    """The longest prompt of the evaluation rows that are answered; None where rows are not open."""
    if prompts is not None:
        origin = f"the longest prompt of {prompts.rows:,} evaluation rows, in tokens"
        return Derived(value=prompts.prompt, origin=origin)
    if inputs.data is None or inputs.tokenizer is None:
        return None
    settings = inputs.settings
    rows = inputs.data.eval[: settings.eval.generate_rows]
    longest = longest_prompt(
        rows,
        inputs.tokenizer,
        settings.data.system_prompt,
        chat=inputs.summary.chat,
        special_tokens=settings.data.special_tokens,
    )
    seen = f"the longest prompt of {len(rows):,} evaluation rows that are answered, in tokens"
    return Derived(value=longest, origin=seen)


def _sample_length(inputs: PlanInputs) -> Derived | None:
    """The longest of sample.prompts; None where there are none, or no tokenizer."""
    settings, tokenizer = inputs.settings, inputs.tokenizer
    if not settings.sample.prompts or tokenizer is None:
        return None
    head = read_first(settings.data.system_prompt, inputs.summary.shape)
    if settings.task == "sequence_classification":
        questions = [tokenizer.encode_with_specials(text) for text in settings.sample.prompts]
    else:
        chat, special_tokens = inputs.summary.chat, settings.data.special_tokens
        questions = [
            question_ids(text, tokenizer, head, chat=chat, special_tokens=special_tokens)
            for text in settings.sample.prompts
        ]
    return Derived(value=max(map(len, questions)), origin="the longest of sample.prompts, in tokens")


def _shorter_prompt_numbers(inputs: PlanInputs) -> dict[str, Derived]:
    """The numbers of prompts, named shorter_, where a method without updates can write shorter ones: what that would
    save. Empty where shorter ones are refused."""
    shorter = method_named(inputs.settings.method.name).with_shorter_prompts(inputs.settings.method)
    if shorter is None:
        return {}
    block, _ = shorter
    prompts = measure_prompts(inputs, block)
    if method_problems(inputs, block) or prompt_problems(inputs, block, prompts):
        return {}
    changed = inputs.with_settings(inputs.settings.replace(method=block))
    return {f"{SHORTER}{name}": number for name, number in _prompt_numbers(changed, prompts).items()}


def parameter_numbers(settings: Settings, model: BaseModel, data: DataSummary) -> dict[str, Derived]:
    """How many weights the model has and the method trains, and the learning rate."""
    method, labels = method_named(settings.method.name), class_count(settings, data)
    trainable = method.trainable_parameters(model.shape, settings.method, labels)
    total = method.total_parameters(model.shape, settings.method, labels)
    rate, origin = settings.optimizer.learning_rate, "typed"
    if rate is None:
        rate, origin = method.default_learning_rate, f"{method.title}'s default: {method.learning_rate_reason}"
        optimizer = optimizer_named(settings.optimizer.name)
        if optimizer.rate_factor != 1:
            factor = optimizer.rate_factor
            rate, origin = rate * factor, f"{origin}; x {factor}, because {optimizer.rate_reason}"
    return {
        "trainable_parameters": Derived(value=trainable, origin=f"what {method.title} trains of this model"),
        "total_parameters": Derived(value=total, origin="base model and what the method adds"),
        "trainable_share": Derived(value=trainable / total, origin=f"{trainable:,} / {total:,}"),
        "learning_rate": Derived(value=rate, origin=origin),
    }


def length_notices(settings: Settings, data: DataSummary, derived: dict[str, Derived]) -> tuple[Notice, ...]:
    """Notices about a run that is long for its rows, and about a warm-up that is long for the run."""
    if not method_named(settings.method.name).updates:
        return ()
    notices, total, epochs = list[Notice](), int(derived["total_steps"].value), derived["epochs"].value
    rows, effective = data.train_rows, int(derived["effective_batch"].value)
    if epochs > MANY_EPOCHS:
        updates = f"{total:,} update" + "s" * (total != 1)
        message = (
            f"{updates} go over the {rows:,} training row{'s' * (rows != 1)} {epochs:,.0f} times (more than "
            f"{MANY_EPOCHS} is told): the model learns them by heart. Give more rows, or fewer updates."
        )
        field = "max_steps" if settings.max_steps is not None else "num_epochs"
        notices.append(Notice(field=field, message=message, count=round(epochs)))
    if rows < effective:
        message = (
            f"An update asks for {effective:,} rows and there {'are' if rows != 1 else 'is'} only {rows:,}: each one "
            f"is made of {rows:,}. Give more rows, or a smaller effective batch."
        )
        notices.append(Notice(field="gradient_accumulation_steps", message=message, count=rows))
    warmup = settings.schedule.warmup_steps
    if warmup >= total and warmup:
        reached = "is reached at the last update only" if warmup == total else "is never reached"
        message = (
            f"The warm-up of {warmup:,} updates is {'as long as' if warmup == total else 'longer than'} the run of "
            f"{total:,}: the learning rate {reached}. Give a shorter warm-up, or more updates."
        )
        notices.append(Notice(field="schedule.warmup_steps", message=message, count=warmup))
    return tuple(notices)
