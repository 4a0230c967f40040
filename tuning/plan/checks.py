"""What cannot be trained: combinations of settings, model, data and device that are refused, each with its fix.

Comes in: checked Settings, the base model, a summary of the data, a device.  Goes out: problems, beside the field that
would mend them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tuning.core.errors import Notice, Problem
from tuning.core.hardware import Device
from tuning.data import PAIRS, DataSummary, bundled_folder, open_data
from tuning.methods import METHODS, method_named
from tuning.methods.base import Case
from tuning.models.architectures import supports_sdpa
from tuning.models.base_model import BaseModel, ModelShape
from tuning.models.tensors import first_names
from tuning.models.weights import Weights, same_classes
from tuning.settings.schema import COMPUTED_IN, Settings
from tuning.text import Row, TextTokenizer
from tuning.text.prompts import Prompted, answer_of

TASK_WORDS = {"causal_lm": "writing text", "sequence_classification": "choosing a class"}


def refused(
    settings: Settings, model: BaseModel, data: DataSummary, device: Device, prompted: Prompted
) -> list[Problem]:
    """What cannot be done. A method without updates writes its prompts for that, and `prompted` sees them."""
    found = method_refuses(settings, model, data, device, prompted)
    longest = settings.data.max_seq_length
    if longest > model.shape.max_positions:
        limit = model.shape.max_positions
        message = f"{longest} is above this model's {model.shape.positions_words}; set {limit} or less."
        found.append(Problem("data.max_seq_length", longest, f"8 to {limit}", message))
    if data.largest_id >= model.shape.vocab_size:
        size = model.shape.vocab_size
        message = (
            f"the rows have token {data.largest_id:,}, and the model has embeddings for {size:,}. "
            "Take the tokenizer that belongs to the model (its tokenizer_config.json may name tokens that it has not), "
            "or give the model more embeddings with resize_token_embeddings."
        )
        found.append(Problem("model", settings.model, f"token ids below {size:,}", message))
    found += _device_refuses(settings, model, device) + _recipe_refused(settings, data)
    found += _packing_refused(settings, model) + _adapter_refused(model, data) + _evaluation_refused(settings, data)
    if settings.task not in model.tasks:
        able, kind = ", ".join(model.tasks), model.shape.model_type
        why = (
            "reads both ways and cannot write, unless its config.json says is_decoder"
            if settings.task == "causal_lm" and model.shape.encoder
            else "has no classes that padding would leave alone"
        )
        found.append(Problem("task", settings.task, able, f"a model of kind {kind} {why}; set task to {able}."))
    return found


def pooler_refused(settings: Settings, new_pooler: tuple[str, ...]) -> list[Problem]:
    """A layer between body and head that the file lacks is drawn at random: the method has to train and keep it."""
    method = method_named(settings.method.name)
    if not new_pooler or method.new_pooler:
        return []
    able = ", ".join(one.name for one in METHODS if one.new_pooler and settings.task in one.tasks)
    message = (
        f"the model's file lacks the layer before its head ({first_names(new_pooler)}), and {method.title} would "
        f"leave it at random values; choose {able}, or a model that was saved with it."
    )
    return [Problem("method.name", settings.method.name, able, message)]


def methods_refused(task: str, shape: ModelShape | None = None, new_pooler: tuple[str, ...] = ()) -> dict[str, str]:
    """The methods that cannot be chosen for this task on this model, whatever their settings are, each with the reason
    in a few words; what is not known of the model refuses none."""
    found = {}
    for method in METHODS:
        if task not in method.tasks:
            found[method.name] = f"only for {' or '.join(TASK_WORDS.get(one, one) for one in method.tasks)}"
        elif shape is not None and method.by_name and not shape.known:
            found[method.name] = f"the layers of a {shape.model_type} model are not known by name"
        elif new_pooler and not method.new_pooler:
            found[method.name] = "the model's file lacks the layer before its head, which this would leave at random"
    return found


def head_notices(settings: Settings, data: DataSummary, weights: Weights) -> list[Notice]:
    """What becomes of the head of a base model that is a classifier already."""
    if settings.task != "sequence_classification" or not weights.head_for or not data.label_names:
        return []
    theirs, ours = weights.head_for, data.label_names
    if method_named(settings.method.name).own_head(settings.method):
        message = f"the base model's head for its {len(theirs)} classes is left out: this method puts on its own"
    elif not same_classes(theirs, ours):
        message = (
            f"the base model sorts into {len(theirs)} classes ({first_names(theirs)}) and the rows into {len(ours)} "
            f"({first_names(ours)}): its head is left out, and a new one begins at random"
        )
    elif theirs == ours:
        return [Notice(field="model", message="the base model's own head is kept: its classes are those of the rows")]
    else:
        message = "the base model's own head is kept, its classes put in the order of the rows' classes"
    return [Notice(field="model", message=message, count=len(theirs))]


def device_lacks(settings: Settings, model: BaseModel, data: DataSummary, device: Device) -> list[Problem]:
    """What a device cannot do of what was planned on another."""
    found = _device_refuses(settings, model, device)
    if not method_named(settings.method.name).updates:  # it refuses prompts, the same on every device
        return found
    return found + method_refuses(settings, model, data, device, Prompted())


def _device_refuses(settings: Settings, model: BaseModel, device: Device) -> list[Problem]:
    found = _attention_refused(settings, model.shape.model_type, device)
    computed = COMPUTED_IN[settings.precision]
    if computed in device.dtypes:
        return found
    able = " or ".join(name for name, dtype in COMPUTED_IN.items() if dtype in device.dtypes)
    message = f"{device.name} does not compute in {computed}; use {able}."
    return [Problem("precision", settings.precision, able, message), *found]


def _recipe_refused(settings: Settings, data: DataSummary) -> list[Problem]:
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
    if not method.packs:
        return f"{method.title} puts something before every row, and packing makes one row of many"
    if method.caches(settings.method):
        return "the frozen body's states are computed once, row by row, and kept: there is no padding to save"
    if not model.shape.family.supports_packing:
        return f"a model of kind {kind} lets packed rows see each other, or has not been proven not to"
    return None


def _packing_refused(settings: Settings, model: BaseModel) -> list[Problem]:
    why = packing_lacks(settings, model) if settings.data.packing else None
    return [Problem("data.packing", True, "false", f"{why}; set data.packing to false.")] if why else []


def _adapter_refused(model: BaseModel, data: DataSummary) -> list[Problem]:
    """An earlier run's adapter is trained on only with the classes that it has learned."""
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


def _evaluation_refused(settings: Settings, data: DataSummary) -> list[Problem]:
    """What is to be measured on evaluation rows that these rows do not have, or cannot tell."""
    found, evaluation = [], settings.eval
    if not data.eval_rows:
        none = "there are no evaluation rows; raise data.eval_fraction, or name rows with data.eval_split"
        if evaluation.metrics != "auto":
            names = list(settings.metrics)
            found.append(Problem("eval.metrics", names, "auto, without evaluation rows", f"{none}, or set auto."))
        if settings.save.best_by != "eval_loss":
            limit = "eval_loss, without evaluation rows"
            found.append(Problem("save.best_by", settings.save.best_by, limit, f"{none}, or set eval_loss."))
        if evaluation.patience is not None:
            limit = "empty, without evaluation rows"
            found.append(Problem("eval.patience", evaluation.patience, limit, f"{none}, or leave it empty."))
        return found
    if "exact_match" in settings.metrics:
        rows = open_data(settings.data, settings.task, settings.seed).eval
        if all(answer_of(row) is None for row in rows):
            message = (
                f"none of the {len(rows):,} evaluation rows has an answer of its own to match; leave exact_match out."
            )
            found.append(Problem("eval.metrics", list(settings.metrics), "metrics without exact_match", message))
    return found


def _attention_refused(settings: Settings, kind: str, device: Device) -> list[Problem]:
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
    if device.kind != "cuda":
        return "FlashAttention runs on CUDA only"
    if precision == "fp32":
        return "FlashAttention computes in 16 bits, so it needs precision autocast_bf16"
    return None if find_spec("flash_attn") else "FlashAttention (the package flash-attn) is not installed here"


def method_refuses(
    settings: Settings, model: BaseModel, data: DataSummary, device: Device, prompted: Prompted
) -> list[Problem]:
    """What the method itself cannot do, and what cannot be done with it."""
    method = method_named(settings.method.name)
    if settings.task not in method.tasks:
        limit = " or ".join(method.tasks)
        message = f"{method.title} does not work on {settings.task}; set task to {limit}, or choose another method."
        return [Problem("task", settings.task, limit, message)]

    if method.by_name and not model.shape.known:
        limit = ", ".join(other.name for other in METHODS if other.updates and not other.by_name)
        message = (
            f"{method.title} finds layers by their names, and those of a {model.shape.model_type} model are not known "
            f"here; choose one of {limit}."
        )
        return [Problem("method.name", settings.method.name, limit, message)]

    def rows() -> tuple[Sequence[Row], Sequence[Row], TextTokenizer]:
        opened = open_data(settings.data, settings.task, settings.seed)
        return opened.train, opened.eval, TextTokenizer(model.path)

    def look(rows: Sequence[Row]) -> int:
        return prompted.look(
            rows,
            TextTokenizer(model.path),
            settings.data.loss_on,
            settings.data.system_prompt,
            chat=data.chat,
            special_tokens=settings.data.special_tokens,
        )

    return method.problems(
        Case(
            shape=model.shape,
            task=settings.task,
            labels=class_count(settings, data),
            device=device.kind,
            device_name=device.name,
            dtypes=device.dtypes,
            precision=settings.precision,
            optimizer=settings.optimizer.name,
            max_grad_norm=settings.optimizer.max_grad_norm,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            gradient_checkpointing=settings.gradient_checkpointing,
            max_seq_length=settings.data.max_seq_length,
            label_tokens=sum(data.trained_tokens),
            data_folder=bundled_folder(settings.data.source),
            rows=rows,
            prompted=look,
        ),
        settings.method,
    )


def class_count(settings: Settings, data: DataSummary) -> int:
    """Classes of the head to train; 0 for a language model."""
    return len(data.label_names or ()) if settings.task == "sequence_classification" else 0
