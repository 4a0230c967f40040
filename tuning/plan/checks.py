"""What cannot be trained: combinations of settings, model, data and device that are refused, each with its fix.

Every check is a function of opened inputs and returns problems, each beside the field that would mend it.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuning.core.errors import Notice, Problem
from tuning.core.hardware import Device
from tuning.data import PAIRS
from tuning.methods import METHODS, method_named
from tuning.models.architectures import supports_sdpa
from tuning.models.base_model import BaseModel, ModelShape
from tuning.models.tensors import first_names
from tuning.models.weights import same_classes
from tuning.plan.inputs import PlanInputs
from tuning.settings.schema import COMPUTED_IN, Settings
from tuning.text.prompts import PromptLengths, answer_of, prompt_lengths

TASK_WORDS = {"causal_lm": "writing text", "sequence_classification": "choosing a class"}


def check(inputs: PlanInputs, prompts: PromptLengths | None = None) -> list[Problem]:
    """All problems of a run with these inputs. `prompts` measures the rows that a method without updates writes."""
    method = inputs.settings.method
    return [
        *(method_problems(inputs, method) or prompt_problems(inputs, method, prompts)),
        *_length_problems(inputs),
        *_token_id_problems(inputs),
        *_dtype_and_attention_problems(inputs),
        *_recipe_problems(inputs),
        *_packing_problems(inputs),
        *_adapter_problems(inputs),
        *_evaluation_problems(inputs),
        *_task_problems(inputs),
        *_pooler_problems(inputs),
    ]


def method_problems(inputs: PlanInputs, block: Any) -> list[Problem]:
    """What the method with the settings `block` cannot do, and what cannot be done with it."""
    settings, model = inputs.settings, inputs.model
    method = method_named(block.name)
    if settings.task not in method.tasks:
        limit = " or ".join(method.tasks)
        message = f"{method.title} does not work on {settings.task}; set task to {limit}, or choose another method."
        return [Problem("task", settings.task, limit, message)]
    if method.needs_known_layers and not model.shape.is_exact:
        limit = ", ".join(other.name for other in METHODS if other.updates and not other.needs_known_layers)
        message = (
            f"{method.title} finds layers by their names, and those of a {model.shape.model_type} model are not known "
            f"here; choose one of {limit}."
        )
        return [Problem("method.name", block.name, limit, message)]
    return method.problems(inputs.method_inputs, block)


def measure_prompts(inputs: PlanInputs, block: Any) -> PromptLengths | None:
    """The prompts that a method without updates writes with the settings `block`, measured; None where it writes none,
    or where rows or tokenizer are not open."""
    method, data = method_named(block.name), inputs.settings.data
    if method.updates or inputs.data is None or inputs.tokenizer is None or method_problems(inputs, block):
        return None
    return prompt_lengths(
        method.longest_prompts(inputs.method_inputs, block),
        inputs.tokenizer,
        data.loss_on,
        data.system_prompt,
        chat=inputs.summary.chat,
        special_tokens=data.special_tokens,
    )


def prompt_problems(inputs: PlanInputs, block: Any, prompts: PromptLengths | None) -> list[Problem]:
    """Prompts that do not fit into the model's context with their answers."""
    limit = inputs.model.shape.max_positions
    if prompts is None or prompts.row <= limit:
        return []
    field, value, fix = method_named(block.name).prompt_length_setting(block)
    message = f"the longest prompt has {prompts.row} tokens, and this model's context ends at {limit}; use {fix}"
    return [Problem(field, value, f"{limit} tokens", message)]


def _length_problems(inputs: PlanInputs) -> list[Problem]:
    """Rows longer than the model's positions."""
    longest, shape = inputs.settings.data.max_seq_length, inputs.model.shape
    limit = shape.max_positions
    if longest <= limit:
        return []
    message = f"{longest} is above this model's {shape.positions_words}; set {limit} or less."
    return [Problem("data.max_seq_length", longest, f"8 to {limit}", message)]


def _token_id_problems(inputs: PlanInputs) -> list[Problem]:
    """Tokens of the rows that the model has no embedding for."""
    largest, size = inputs.summary.largest_id, inputs.model.shape.vocab_size
    if largest < size:
        return []
    message = (
        f"the rows have token {largest:,}, and the model has embeddings for {size:,}. "
        "Take the tokenizer that belongs to the model (its tokenizer_config.json may name tokens that it has not), "
        "or give the model more embeddings with resize_token_embeddings."
    )
    return [Problem("model", inputs.settings.model, f"token ids below {size:,}", message)]


def _task_problems(inputs: PlanInputs) -> list[Problem]:
    """A task that this kind of model cannot do."""
    task, model = inputs.settings.task, inputs.model
    if task in model.tasks:
        return []
    able = ", ".join(model.tasks)
    why = (
        "reads both ways and cannot write, unless its config.json says is_decoder"
        if task == "causal_lm" and model.shape.encoder
        else "has no classes that padding would leave alone"
    )
    return [Problem("task", task, able, f"a model of kind {model.shape.model_type} {why}; set task to {able}.")]


def _pooler_problems(inputs: PlanInputs) -> list[Problem]:
    """A method that would leave a layer between body and head at random values, where the model's file lacks it."""
    settings, new_pooler = inputs.settings, inputs.weights.new_pooler if inputs.weights is not None else ()
    method = method_named(settings.method.name)
    if not new_pooler or method.new_pooler:
        return []
    able = ", ".join(other.name for other in METHODS if other.new_pooler and settings.task in other.tasks)
    message = (
        f"the model's file lacks the layer before its head ({first_names(new_pooler)}), and {method.title} would "
        f"leave it at random values; choose {able}, or a model that was saved with it."
    )
    return [Problem("method.name", settings.method.name, able, message)]


def methods_refused(task: str, shape: ModelShape | None = None, new_pooler: tuple[str, ...] = ()) -> dict[str, str]:
    """The methods that cannot be chosen for this task on this model, whatever their settings are, each with the reason
    in a few words; what is not known of the model refuses none."""
    reasons = {}
    for method in METHODS:
        if task not in method.tasks:
            reasons[method.name] = f"only for {' or '.join(TASK_WORDS.get(name, name) for name in method.tasks)}"
        elif shape is not None and method.needs_known_layers and not shape.is_exact:
            reasons[method.name] = f"the layers of a {shape.model_type} model are not known by name"
        elif new_pooler and not method.new_pooler:
            reasons[method.name] = "the model's file lacks the layer before its head, which this would leave at random"
    return reasons


def head_notices(inputs: PlanInputs) -> list[Notice]:
    """What becomes of the head of a base model that is a classifier already."""
    base_classes, classes = inputs.weights.head_for if inputs.weights is not None else (), inputs.summary.label_names
    if inputs.settings.task != "sequence_classification" or not base_classes or not classes:
        return []
    method = inputs.settings.method
    if method_named(method.name).own_head(method):
        message = f"the base model's head for its {len(base_classes)} classes is left out: this method puts on its own"
    elif not same_classes(base_classes, classes):
        message = (
            f"the base model sorts into {len(base_classes)} classes ({first_names(base_classes)}) and the rows into "
            f"{len(classes)} ({first_names(classes)}): its head is left out, and a new one begins at random"
        )
    elif base_classes == classes:
        return [Notice(field="model", message="the base model's own head is kept: its classes are those of the rows")]
    else:
        message = "the base model's own head is kept, its classes put in the order of the rows' classes"
    return [Notice(field="model", message=message, count=len(base_classes))]


def device_problems(inputs: PlanInputs) -> list[Problem]:
    """What the device cannot do of what was planned on another."""
    problems, method = _dtype_and_attention_problems(inputs), inputs.settings.method
    if not method_named(method.name).updates:  # it refuses prompts, the same on every device
        return problems
    return problems + method_problems(inputs, method)


def _dtype_and_attention_problems(inputs: PlanInputs) -> list[Problem]:
    """A precision or an attention implementation that the device does not have."""
    settings, device = inputs.settings, inputs.device
    problems = _attention_problems(inputs)
    computed = COMPUTED_IN[settings.precision]
    if computed in device.dtypes:
        return problems
    able = " or ".join(name for name, dtype in COMPUTED_IN.items() if dtype in device.dtypes)
    message = f"{device.name} does not compute in {computed}; use {able}."
    return [Problem("precision", settings.precision, able, message), *problems]


def _recipe_problems(inputs: PlanInputs) -> list[Problem]:
    """A recipe with rows or a method that it cannot be used with."""
    settings, data = inputs.settings, inputs.summary
    if settings.recipe is None:
        return []
    if settings.task != "causal_lm" or data.shape != PAIRS:
        message = "a recipe needs questions with answers; use such data, for example people-questions, as causal_lm."
        return [Problem("recipe", settings.recipe, PAIRS, message)]
    method = method_named(settings.method.name)
    if not method.updates:
        message = f"a recipe prepares rows to train on, and {method.title} trains nothing; choose lora or full."
        return [Problem("recipe", settings.recipe, "a method that trains", message)]
    return []


def packing_lacks(settings: Settings, model: BaseModel) -> str | None:
    """Why rows cannot be joined into one; None where they can."""
    method, kind = method_named(settings.method.name), model.shape.model_type
    if settings.task != "causal_lm":
        return "a class belongs to a row, and packing makes one row of many"
    if not method.supports_packing:
        return f"{method.title} puts something before every row, and packing makes one row of many"
    if method.caches_features(settings.method):
        return "the frozen body's states are computed once, row by row, and kept: there is no padding to save"
    if not model.shape.family.supports_packing:
        return f"a model of kind {kind} lets packed rows see each other, or has not been proven not to"
    return None


def _packing_problems(inputs: PlanInputs) -> list[Problem]:
    """data.packing true where rows cannot be joined."""
    why = packing_lacks(inputs.settings, inputs.model) if inputs.settings.data.packing else None
    return [Problem("data.packing", True, "false", f"{why}; set data.packing to false.")] if why else []


def _adapter_problems(inputs: PlanInputs) -> list[Problem]:
    """An earlier run's adapter with rows of other classes than it has learned."""
    model, data = inputs.model, inputs.summary
    file = Path(model.adapter or "") / "labels.json"
    if model.adapter is None or not file.is_file():
        return []
    learned = tuple(json.loads(file.read_text(encoding="utf-8")))
    if learned == data.label_names:
        return []
    names = ", ".join(learned)
    message = (
        f"{model.title} tells {names} apart, these rows {', '.join(data.label_names or ())}; use rows with the same "
        "classes, or another model."
    )
    return [Problem("model", model.spec, names, message)]


def _evaluation_problems(inputs: PlanInputs) -> list[Problem]:
    """Measures on evaluation rows where there are none, or none with an answer to match."""
    problems, settings = [], inputs.settings
    evaluation = settings.eval
    if not inputs.summary.eval_rows:
        none = "there are no evaluation rows; raise data.eval_fraction, or name rows with data.eval_split"
        if evaluation.metrics != "auto":
            names = list(settings.metrics)
            problems.append(Problem("eval.metrics", names, "auto, without evaluation rows", f"{none}, or set auto."))
        if settings.save.best_by != "eval_loss":
            limit = "eval_loss, without evaluation rows"
            problems.append(Problem("save.best_by", settings.save.best_by, limit, f"{none}, or set eval_loss."))
        if evaluation.patience is not None:
            limit = "empty, without evaluation rows"
            problems.append(Problem("eval.patience", evaluation.patience, limit, f"{none}, or leave it empty."))
        return problems
    if "exact_match" in settings.metrics and inputs.data is not None:
        rows = inputs.data.eval
        if all(answer_of(row) is None for row in rows):
            message = (
                f"none of the {len(rows):,} evaluation rows has an answer of its own to match; leave exact_match out."
            )
            problems.append(Problem("eval.metrics", list(settings.metrics), "metrics without exact_match", message))
    return problems


def _attention_problems(inputs: PlanInputs) -> list[Problem]:
    """An attention implementation that the kind of model, the device or the installed packages do not have."""
    settings, kind, device = inputs.settings, inputs.model.shape.model_type, inputs.device
    if settings.attention == "sdpa" and not supports_sdpa(kind):
        message = f"a model of kind {kind} has no sdpa in transformers; use eager, which stores the attention matrix."
        return [Problem("attention", "sdpa", "eager", message)]
    why = None
    if settings.attention == "flash":
        why = _flash_lacks(device, settings.precision)
    elif settings.attention == "flex" and device.kind != "cuda":
        why = "FlexAttention has no backward pass on a processor"
    if why is None:
        return []
    return [Problem("attention", settings.attention, "sdpa or eager", f"{why}; use sdpa, which stores as little.")]


def _flash_lacks(device: Device, precision: str) -> str | None:
    """Why FlashAttention cannot be used; None where it can."""
    if device.kind != "cuda":
        return "FlashAttention runs on CUDA only"
    if precision == "fp32":
        return "FlashAttention computes in 16 bits, so it needs precision autocast_bf16"
    return None if find_spec("flash_attn") else "FlashAttention (the package flash-attn) is not installed here"
