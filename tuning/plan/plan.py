"""From what was chosen to what will happen: every derived number with where it came from.

Comes in: Settings, the base model, a summary of the data, a device.  Goes out: a `Plan`, plain data that crosses to a
worker, or a SettingsError with every reason why it cannot be trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuning.core.errors import ModelError, Notice, SettingsError, counted
from tuning.core.hardware import Device, this_machine
from tuning.data import CONVERSATION, TEXT, DataSet, DataSummary, open_data, read_first, summarize
from tuning.data.template_choice import template_notices, with_template_chosen
from tuning.methods import method_named
from tuning.models.base_model import BaseModel, ModelShape, resolve_model
from tuning.models.file_digests import changes
from tuning.models.weights import Weights, compare_weights
from tuning.plan.checks import class_count, head_notices, method_refuses, packing_lacks, pooler_refused, refused
from tuning.settings.optimizers import optimizer_named
from tuning.settings.schema import WRITTEN_METRICS, DataSettings, Settings
from tuning.settings.versions import upgrade
from tuning.text import TextTokenizer
from tuning.text.prompts import Prompted, longest_prompt, question_ids

SMALL_MODEL, SMALL_MODEL_ROWS = 20_000_000, 32
"""Below so many parameters an evaluation takes at least so many rows at once; the result does not depend on it."""
MANY_EPOCHS = 20
"""A run that goes over its rows more often than this says so."""
EVALUATION_SHARE = 0.1
"""Of the tokens that training reads, what evaluations may read where eval.every is left to the plan."""
PROMPTS = ("prompted_", "answered_", "asked_")
"""Before the names of numbers about prompts that a method has written."""
SHORTER = "shorter_"
"""Before the names of numbers about shorter prompts that were not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A number nobody typed, and the sum or the reason behind it."""

    value: float
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, decided in full."""

    settings: Settings
    model: BaseModel
    data: DataSummary
    device: Device
    derived: dict[str, Derived]
    notices: tuple[Notice, ...] = ()
    """What is told before Start: everything left out, guessed, renamed, replaced or cut, by count."""
    kept_fingerprint: str | None = field(default=None, compare=False)
    """Of a plan that was stored: its fingerprint then, so that its checkpoints are known again by later versions."""

    def value(self, key: str) -> Any:
        """A derived number by name; raises KeyError."""
        return self.derived[key].value

    def on(self, device: Device) -> Plan:
        """The same run held against another device."""
        return replace(self, device=device)

    @property
    def labels(self) -> int:
        """Classes of the head to train; 0 for a language model."""
        return class_count(self.settings, self.data)

    def evaluation_rows(self, micro_batch_size: int | None = None) -> int:
        """Rows an evaluation takes at once: twice those of training, for nothing is kept for a backward pass."""
        small = self.value("total_parameters") < SMALL_MODEL
        return max(2 * (micro_batch_size or self.settings.micro_batch_size), SMALL_MODEL_ROWS if small else 1)

    @property
    def packing(self) -> bool:
        """Whether a micro-batch's rows are joined into one without padding, `null` resolved."""
        return bool(self.value("packing"))

    @property
    def chat(self) -> bool:
        """Whether rows are written through the model's chat template, and so whatever it is asked."""
        return self.data.chat

    @property
    def data_settings(self) -> DataSettings:
        """The settings of the data, `chat_template` decided."""
        return self.settings.data.replace(chat_template="on" if self.chat else "off")

    @property
    def system_prompt(self) -> str | None:
        """What stands before each prompt, in training and when it is asked; None where rows are texts without any."""
        return read_first(self.settings.data.system_prompt, self.data.shape)

    @property
    def fingerprint(self) -> str:
        """Equal for runs that must give the same curve on the same machine."""
        if self.kept_fingerprint is not None:
            return self.kept_fingerprint
        return _fingerprint(self.settings.to_dict(), self.data.fingerprint, asdict(self.model.shape))

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "model": self.model.to_dict(),
            "data": self.data.to_dict(),
            "device": asdict(self.device),
            "derived": {key: asdict(one) for key, one in self.derived.items()},
            "notices": [one.to_dict() for one in self.notices],
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Plan:
        """A stored plan; one of an older version with its old meaning written out, and that told."""
        settings, told = upgrade(plain["settings"])
        notices = (*(Notice.from_dict(one) for one in plain.get("notices", ())), *told)
        fingerprint = plain.get("fingerprint") or _fingerprint(
            plain["settings"], plain["data"]["fingerprint"], plain["model"]["shape"]
        )
        return Plan(
            settings=Settings.from_dict(settings),
            model=BaseModel.from_dict(plain["model"]),
            data=DataSummary.from_dict(plain["data"]),
            device=Device(**(plain["device"] | {"dtypes": tuple(plain["device"]["dtypes"])})),
            derived=_with_later(settings, {key: Derived(**one) for key, one in plain["derived"].items()}),
            notices=notices,
            kept_fingerprint=fingerprint,
        )


def _fingerprint(settings: dict[str, Any], data: str, shape: dict[str, Any]) -> str:
    return sha256(json.dumps([settings, data, shape], sort_keys=True).encode()).hexdigest()[:16]


def _with_later(settings: dict[str, Any], derived: dict[str, Derived]) -> dict[str, Derived]:
    """The numbers of a stored plan, with those that plans of its version did not have yet."""
    later = {
        "eval_every": Derived(value=settings["eval"]["every"], origin="eval.every"),
        "packing": Derived(value=bool(settings["data"]["packing"]), origin="data.packing"),
    }
    return later | derived


RunModel = Callable[[Settings], BaseModel]
"""Finds the result of an earlier run for settings whose `model` is run:ID."""


def plan_for(given: Any, run_model: RunModel | None = None) -> Plan:
    """The whole way from a settings object to a plan on this machine. Raises TuningError with every problem."""
    given, told = upgrade(given)
    settings = Settings.from_dict(given)
    model = base_model(settings, run_model)
    weights = compare_weights(model, settings.task)
    assert weights is not None  # without a limit of time it is waited for
    if model.learned_head:  # what was compared are the files of its base model, which have another head or none
        weights = replace(weights, notices=(), head_for=())
    readable = model.missing is None or (Path(model.path) / "tokenizer.json").is_file()
    rows = with_template_chosen(settings.data, model, settings.recipe)
    given_rows = (rows, model.path, settings.task, settings.seed, settings.recipe)
    data = summarize(*given_rows) if readable else _unread(settings)
    return make_plan(settings, model, data, this_machine(settings.device), told, weights)


def base_model(settings: Settings, run_model: RunModel | None = None) -> BaseModel:
    """What `model` names. Raises ModelError; a run's result is never its own base model instead."""
    if not settings.model.startswith("run:"):
        return resolve_model(settings.model, settings.revision)
    if settings.revision is not None:
        raise ModelError("revision is for hub models; leave it empty", settings.revision, "null", "revision")
    if run_model is None:
        message = "the result of a run is found only in the home folder that holds it; name that: --home DIR"
        raise ModelError(message, settings.model, "a run of the home folder that --home names")
    return run_model(settings)


def changed_since(plan: Plan, data: DataSet) -> list[str]:
    """What of rows and base model is not as it was when the plan was made, in words; nothing of a plan from before
    that was kept. `data` are the rows of its settings, opened now."""
    model, found = plan.model, list[str]()
    if not model.files:
        return found
    if data.fingerprint != plan.data.fingerprint:
        found.append(f"the rows of {plan.data.title} are others")
    found += [f"{one} in the base model {model.title}" for one in changes(Path(model.path), model.files)]
    if model.adapter is not None:
        found += [f"{one} in the adapter to train on" for one in changes(Path(model.adapter), model.adapter_files)]
    return found


def _unread(settings: Settings) -> DataSummary:
    """The rows where no tokenizer can count them: each is taken to be as long as max_seq_length allows."""
    data, longest = open_data(settings.data, settings.task, settings.seed), settings.data.max_seq_length
    rows = len(data.train)
    return DataSummary(
        name=data.name,
        title=data.title,
        shape=data.shape,
        label_names=data.label_names,
        train_rows=rows,
        eval_rows=len(data.eval),
        lengths=(longest,),
        trained_tokens=(1 if settings.task == "sequence_classification" else longest,),
        cut_rows=0,
        dropped_rows=0,
        fingerprint=data.fingerprint,
        notices=data.notices,
    )


def make_plan(
    settings: Settings,
    model: BaseModel,
    data: DataSummary,
    device: Device,
    told: tuple[Notice, ...] = (),
    weights: Weights | None = None,
) -> Plan:
    """Work out every derived number. Raises SettingsError with all combinations that cannot be trained.

    `told` are notices from before the plan, such as those of settings of an older version; `weights` is what the
    comparison of the folder's tensors has found.
    """
    prompted = Prompted()
    problems = refused(settings, model, data, device, prompted)
    if weights is not None:
        problems += pooler_refused(settings, weights.new_pooler)
        told = (*told, *weights.notices, *head_notices(settings, data, weights))
    if problems:
        raise SettingsError(problems)
    derived = _derive(settings, model, data) | _prompts(settings, model, data, prompted)
    derived |= _shorter_prompts(settings, model, data, device)
    written = template_notices(settings.data, model, settings.recipe, pairs=_has_answers(settings, data))
    notices = (*told, *model.notices, *data.notices, *written, *_length_notices(settings, data, derived))
    return Plan(settings=settings, model=model, data=data, device=device, derived=derived, notices=notices)


def _has_answers(settings: Settings, data: DataSummary) -> bool:
    """Whether rows are prompts with completions."""
    return settings.task == "causal_lm" and data.shape not in (TEXT, CONVERSATION)


def _derive(settings: Settings, model: BaseModel, data: DataSummary) -> dict[str, Derived]:
    micro, steps, devices = (settings.micro_batch_size, settings.gradient_accumulation_steps, settings.num_devices)
    effective = micro * steps * devices
    per_epoch = math.ceil(data.train_rows / effective)
    found = {"effective_batch": Derived(value=effective, origin=f"{effective} = {micro} x {steps} x {devices}")}
    rows = f"{counted(data.train_rows, 'row')} / {effective} a step, the last one smaller where it does not divide"
    found["updates_per_epoch"] = Derived(value=per_epoch, origin=rows)
    if settings.max_steps is not None:
        total = Derived(value=settings.max_steps, origin="max_steps")
    else:
        wanted = math.ceil((settings.num_epochs or 0) * per_epoch)
        epochs = f"{settings.num_epochs:g} {'epoch' if settings.num_epochs == 1 else 'epochs'}"
        total = Derived(value=max(1, wanted), origin=f"{epochs} x {counted(per_epoch, 'update')}")
    found["total_steps"] = total
    updates, mean = counted(total.value, "update"), sum(data.lengths) / len(data.lengths)
    found["epochs"] = Derived(value=total.value / per_epoch, origin=f"{updates} / {per_epoch} an epoch")
    real = min(effective, data.train_rows)
    each = counted(real, "row")
    found["tokens_per_update"] = Derived(value=mean * real, origin=f"{each} x {mean:.1f} tokens on average")
    learned = sum(data.trained_tokens) / len(data.trained_tokens)
    found["trained_tokens_per_update"] = Derived(
        value=learned * real, origin=f"{each} x {learned:.1f} labels on average"
    )
    found["total_tokens"] = Derived(value=mean * real * total.value, origin=f"{mean * real:,.0f} tokens x {updates}")
    taught = "" if settings.recipe is None else "; as the recipe writes it at its longest"
    widest = min(data.longest, settings.data.max_seq_length)
    found["packing"] = _packing(settings, model)
    found["eval_every"] = _evaluation_interval(settings, data, mean * real, int(total.value))
    found["widest_length"] = Derived(value=widest, origin=data.longest_origin + taught)
    return found | _parameters(settings, model, data)


def _length_notices(settings: Settings, data: DataSummary, derived: dict[str, Derived]) -> tuple[Notice, ...]:
    """What is told of a run that is long for its rows, and of a warm-up that is long for the run."""
    if not method_named(settings.method.name).updates:
        return ()
    found, total, epochs = list[Notice](), int(derived["total_steps"].value), derived["epochs"].value
    rows, effective = data.train_rows, int(derived["effective_batch"].value)
    if epochs > MANY_EPOCHS:
        updates = f"{total:,} update" + "s" * (total != 1)
        message = (
            f"{updates} go over the {rows:,} training row{'s' * (rows != 1)} {epochs:,.0f} times (more than "
            f"{MANY_EPOCHS} is told): the model learns them by heart. Give more rows, or fewer updates."
        )
        field = "max_steps" if settings.max_steps is not None else "num_epochs"
        found.append(Notice(field=field, message=message, count=round(epochs)))
    if rows < effective:
        message = (
            f"An update asks for {effective:,} rows and there {'are' if rows != 1 else 'is'} only {rows:,}: each one "
            f"is made of {rows:,}. Give more rows, or a smaller effective batch."
        )
        found.append(Notice(field="gradient_accumulation_steps", message=message, count=rows))
    warmup = settings.schedule.warmup_steps
    if warmup >= total and warmup:
        reached = "is reached at the last update only" if warmup == total else "is never reached"
        message = (
            f"The warm-up of {warmup:,} updates is {'as long as' if warmup == total else 'longer than'} the run of "
            f"{total:,}: the learning rate {reached}. Give a shorter warm-up, or more updates."
        )
        found.append(Notice(field="schedule.warmup_steps", message=message, count=warmup))
    return tuple(found)


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


def _prompts(settings: Settings, model: BaseModel, data: DataSummary, prompted: Prompted) -> dict[str, Derived]:
    """Tokens of what the model is asked, where it is asked something: whole, for max_seq_length does not cut it."""
    found, texts, method = dict[str, Derived](), settings.sample.prompts, method_named(settings.method.name)
    if prompted.rows:
        seen = f"of {prompted.rows:,} evaluation rows as {method.title} writes them"
        found["prompted_length"] = Derived(value=prompted.length, origin=f"the longest {seen}, in tokens")
        found["prompted_labels"] = Derived(value=prompted.labels, origin=f"the most label tokens {seen}")
    if not (Path(model.path) / "tokenizer.json").is_file():
        return found
    if WRITTEN_METRICS & set(settings.metrics) and data.eval_rows:
        count = settings.eval.generate_rows
        longest, seen = prompted.prompt, f"the longest prompt of {prompted.rows:,} evaluation rows, in tokens"
        if not prompted.rows:
            rows = open_data(settings.data, settings.task, settings.seed).eval[:count]
            longest = longest_prompt(
                rows,
                TextTokenizer(model.path),
                settings.data.system_prompt,
                chat=data.chat,
                special_tokens=settings.data.special_tokens,
            )
            seen = f"the longest prompt of {len(rows):,} evaluation rows that are answered, in tokens"
        found["answered_length"] = Derived(value=longest, origin=seen)
    asked = prompted.prompt if method.asks(settings.method) else data.asked_length
    if asked:
        seen = "the longest question that the model answers before rows are written, in tokens"
        found["asked_length"] = Derived(value=asked, origin=seen)
    if texts and method.updates:  # a run without updates answers none
        tokenizer, special = TextTokenizer(model.path), settings.data.special_tokens
        head = read_first(settings.data.system_prompt, data.shape)
        classes = settings.task == "sequence_classification"
        ids = [
            tokenizer.encode_with_specials(text)
            if classes
            else question_ids(text, tokenizer, head, chat=data.chat, special_tokens=special)
            for text in texts
        ]
        found["sample_length"] = Derived(value=max(map(len, ids)), origin="the longest of sample.prompts, in tokens")
    return found


def _shorter_prompts(settings: Settings, model: BaseModel, data: DataSummary, device: Device) -> dict[str, Derived]:
    """The same, named shorter_, where a method without updates can write shorter prompts: what would be saved."""
    other = method_named(settings.method.name).shorter(settings.method)
    if other is None:
        return {}
    seen, changed = Prompted(), settings.replace(method=other[0])
    if method_refuses(changed, model, data, device, seen):
        return {}
    return {f"{SHORTER}{name}": one for name, one in _prompts(changed, model, data, seen).items()}


@lru_cache(maxsize=256)
def _counts(name: str, shape: ModelShape, block: Any, labels: int) -> tuple[int, int]:
    """Trainable and total parameters; kept, for the estimate asks what other methods would take."""
    method = method_named(name)
    return method.trainable_parameters(shape, block, labels), method.total_parameters(shape, block, labels)


def with_method(plan: Plan, block: Any) -> Plan:
    """The plan with another method, or with other settings of its own, to estimate what that would take.

    Of the prompts that a method has written, those stay that `Method.shorter` settings make.
    """
    derived = dict(plan.derived)
    if "prompted_length" in derived:
        shorter = method_named(plan.settings.method.name).shorter(plan.settings.method)
        written = SHORTER if shorter is not None and shorter[0] == block else "none"
        derived = {name: one for name, one in derived.items() if not name.startswith(PROMPTS)}
        derived |= {name.removeprefix(written): one for name, one in derived.items() if name.startswith(written)}
    settings = plan.settings.replace(method=block)
    return replace(plan, settings=settings, derived=derived | _parameters(settings, plan.model, plan.data))


def _parameters(settings: Settings, model: BaseModel, data: DataSummary) -> dict[str, Derived]:
    method = method_named(settings.method.name)
    trainable, total = _counts(settings.method.name, model.shape, settings.method, class_count(settings, data))
    rate, typed = settings.optimizer.learning_rate, "typed"
    if rate is None:
        rate, typed = method.default_learning_rate, f"{method.title}'s default: {method.learning_rate_reason}"
        optimizer = optimizer_named(settings.optimizer.name)
        if optimizer.rate_factor != 1:
            factor = optimizer.rate_factor
            rate, typed = rate * factor, f"{typed}; x {factor}, because {optimizer.rate_reason}"
    return {
        "trainable_parameters": Derived(value=trainable, origin=f"what {method.title} trains of this model"),
        "total_parameters": Derived(value=total, origin="base model and what the method adds"),
        "trainable_share": Derived(value=trainable / total, origin=f"{trainable:,} / {total:,}"),
        "learning_rate": Derived(value=rate, origin=typed),
    }
