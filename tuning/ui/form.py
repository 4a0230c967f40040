"""The form: every setting as a component, built from the settings' own fields, and back again as the settings JSON.

Comes in: the fields (help, limits, defaults) of `settings` and of each method, the catalogues of models and data.
Goes out: components by path, `settings_from_values` (the one way from the form to settings) and its inverse.
A field that a person types into is a text box even for numbers: what was typed stays, and is judged by the settings.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import gradio as gr

from tuning import fields as field_tables
from tuning.data import data_catalogue
from tuning.fields import Field
from tuning.hardware import DEVICES, this_machine
from tuning.methods import METHODS
from tuning.models import model_catalogue
from tuning.settings import Settings, all_fields
from tuning.ui.models import hub_data, models

STEPS, EPOCHS = "updates", "epochs"
LENGTH = "length"
"""The form's own choice between max_steps and num_epochs; the other one is sent as null."""
WOULD_FIT_ON = "would_fit_on"
"""A question to the estimate, never a setting."""
RUN_NAME = "run_name"
NOT_SETTINGS = (LENGTH, WOULD_FIT_ON, RUN_NAME)

TERMS = {
    "causal_lm": "write text (causal LM)", "sequence_classification": "choose a class", "auto": "auto",
    "response": "the response", "all": "all tokens", "last_turn": "the last turn", "adamw": "AdamW", "sgd": "SGD",
    "adafactor": "Adafactor", "adamw_8bit": "8-bit AdamW", "muon": "Muon",
    "stop": "refuse to start", "skip": "leave them out",
}  # fmt: skip
LABELS = {
    "revision": "Revision of a hub model", "recipe": "Recipe (JSON)",
    "task": "Task", "model": "Base model", "data.source": "Data", "micro_batch_size": "Micro-batch size",
    "gradient_accumulation_steps": "Gradient accumulation steps", "optimizer.learning_rate": "Learning rate",
    "max_steps": "Updates (max_steps)", "num_epochs": "Epochs (num_epochs)", "schedule.name": "Schedule",
    "optimizer.name": "Optimizer", "data.max_seq_length": "Maximum sequence length", "data.loss_on": "Loss on",
    "attention": "Attention", "eval.every": "Evaluate every (updates)", "eval.patience": "Early-stopping patience",
    "save.every": "Checkpoint every (updates)", "method.r": "Rank r", "method.alpha": "Alpha",
    "method.rslora": "rsLoRA", "method.dora": "DoRA", "optimizer.max_grad_norm": "Maximum gradient norm",
    "schedule.min_lr_ratio": "Minimum learning rate ratio", "data.train_rows": "Training rows",
    "data.eval_rows": "Evaluation rows", "sample.every": "Answer the prompts every (updates)",
    "sample.prompts": "Sample prompts, one a line (\\n breaks it)", "eval.max_new_tokens": "Longest answer (tokens)",
    "save.keep": "Checkpoints kept", "data.columns": "Columns (JSON)", "data.label_names": "Label names, one a line",
    "data.bad_rows": "Bad rows", "data.format": "File format",
}  # fmt: skip
SHORT = {
    "micro_batch_size": "rows on the device at once",
    "gradient_accumulation_steps": "micro-batches added up before one update",
}
SLIDERS = {"micro_batch_size": 64, "gradient_accumulation_steps": 64}
MAIN = ("task", "model", "data.source", "micro_batch_size", "gradient_accumulation_steps", "optimizer.learning_rate")
HIDDEN = ("version", "num_devices", "method.name", "max_steps", "num_epochs")
"""Not offered yet, or in a form of its own; they take their default, which `Settings` adds."""


GROUPS = {
    "Optimizer and schedule": ("optimizer", "schedule"), "Data": ("data",),
    "Evaluation, checkpoints, samples": ("eval", "save", "sample"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The components of the form by the path of their setting; a method's own by `method.NAME.FIELD`."""

    parts: dict[str, Any]
    method_blocks: dict[str, gr.Column]
    lookup: gr.HTML
    hub_data: gr.HTML
    """Look up, under the model field."""

    def values(self, given: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.parts, given, strict=True))


def every_path() -> dict[str, Field]:
    """All fields that the form offers, by the path of the component."""
    found = {path: one for path, one in all_fields().items() if not path.startswith("method.")}
    for method in METHODS:
        for name, one in field_tables.table(method.settings, "method.").items():
            if one.path not in HIDDEN:
                found[f"method.{method.name}.{name}"] = one
    return {path: one for path, one in found.items() if path not in HIDDEN or path in ("max_steps", "num_epochs")}


def dom_id(path: str) -> str:
    return "f-" + path.replace(".", "-")


def label_of(path: str, field: Field) -> str:
    known = LABELS.get(field.path)
    return known or path.split(".")[-1].replace("_", " ").capitalize()


def as_text(value: Any, kind: type) -> Any:
    """A settings value as its component shows it."""
    if kind is bool:
        return bool(value)
    if value is None:
        return ""
    if kind is dict:
        return json.dumps(value) if value else ""
    if kind is tuple:
        words = bool(value) and isinstance(value[0], str)
        return "\n".join(map(_one_line, value)) if words else ", ".join(_exactly(one) for one in value)
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return _exactly(value) if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    """A text that may hold line breaks, in a list with one text a line."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _many_lines(text: str) -> str:
    return re.sub(r"\\(\\|n)", lambda found: "\n" if found[1] == "n" else "\\", text)


def _exactly(value: float) -> str:
    """As short as possible, but the same number when it is read again."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def from_text(value: Any, field: Field) -> Any:
    """What a component holds as a settings value. What cannot be read goes on as it is, for the settings to refuse."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if field.listed and text != field.default:
        return [part.strip() for part in text.split(",") if part.strip()] or text
    if field.kind is str:
        return text or (None if field.nullable else text)
    if not text:
        empty: Any = [] if field.kind is tuple else {} if field.kind is dict else ""
        return None if field.nullable else empty
    if field.kind is dict:
        return _json_or(text)
    if field.kind is tuple:
        numbers = bool(field.default) and not isinstance(field.default[0], str)
        parts = [part.strip() for part in (text.split(",") if numbers else text.split("\n")) if part.strip()]
        return [_number_or(part) for part in parts] if numbers else [_many_lines(part) for part in parts]
    return _number_or(text)


def _json_or(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number_or(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def settings_from_values(values: dict[str, Any]) -> dict[str, Any]:
    """The settings JSON of what stands in the form. The only way from the form to settings."""
    name = values["method.name"]
    settings: dict[str, Any] = {"method": {"name": name}}
    for path, field in every_path().items():
        if path.startswith("method."):
            method, key = path.split(".")[1:]
            if method == name:
                settings["method"][key] = from_text(values[path], field)
            continue
        block = settings
        *outer, last = path.split(".")
        for part in outer:
            block = block.setdefault(part, {})
        block[last] = from_text(values[path], field)
    settings["num_epochs" if values[LENGTH] == STEPS else "max_steps"] = None
    return settings


def values_from_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What the form shows for these settings; fields of methods not chosen keep their defaults."""
    method = settings.get("method", {})
    values: dict[str, Any] = {"method.name": method.get("name", METHODS[0].name)}
    for path, field in every_path().items():
        value: Any = field.default
        if path.startswith("method."):
            name, key = path.split(".")[1:]
            if name == method.get("name"):
                value = method.get(key, field.default)
        else:
            block: Any = settings
            for part in path.split("."):
                block = block.get(part, field.default) if isinstance(block, dict) else field.default
            value = block
        values[path] = value if path in SLIDERS else as_text(value, field.kind)
    values[LENGTH] = EPOCHS if settings.get("num_epochs") is not None else STEPS
    return values


def first_settings() -> dict[str, Any]:
    """What stands in the form on a first visit: one press of Start shows learning within ten seconds."""
    preset = {"gradient_accumulation_steps": 4, "max_steps": 60}
    return Settings.from_dict(preset).to_dict()


def first_values() -> dict[str, Any]:
    return values_from_settings(first_settings()) | {WOULD_FIT_ON: this_machine().name, RUN_NAME: ""}


def _component(path: str, field: Field, value: Any) -> gr.components.Component:
    look: dict[str, Any] = {
        "label": label_of(path, field), "elem_id": dom_id(path), "elem_classes": ["tf-field"],
        "info": SHORT.get(path, field.help),
    }  # fmt: skip
    if path == "model":
        options = [(f"{model.title}", model.spec) for model in model_catalogue()]
        return gr.Dropdown(options, value=value, allow_custom_value=True, **look)
    if path == "data.source":
        cards = [(str(card.get("title", card["name"])), card["name"]) for card in data_catalogue()]
        return gr.Dropdown(cards, value=value, allow_custom_value=True, **look)
    if path in SLIDERS:
        return gr.Slider(1, SLIDERS[path], step=1, value=value, **look)
    if field.limit.choices:
        options = [(TERMS.get(word, word), word) for word in field.limit.choices]
        if field.limit.open or field.listed:
            return gr.Dropdown(options, value=value, allow_custom_value=True, **look)
        kind = gr.Radio if len(options) <= 3 else gr.Dropdown
        return kind(options, value=value, **look)
    if field.kind is bool:
        return gr.Checkbox(value=value, **look)
    lines = 2 if field.kind is tuple and not field.default else 1
    return gr.Textbox(value=value, lines=lines, max_lines=6, placeholder="" if not field.nullable else "empty", **look)


def build_form(values: dict[str, Any]) -> Form:
    """Lays the form out in the current Blocks; all fields but those of MAIN, method and length are in the accordion."""
    paths, parts = every_path(), {}

    def add(path: str) -> gr.components.Component:
        parts[path] = _component(path, paths[path], values[path])
        return parts[path]

    for path in MAIN[:3]:
        add(path)
        if path == "model":
            lookup = models()
        if path == "data.source":
            data_card = hub_data()
    titles = [(method.title, method.name) for method in METHODS]
    name = values["method.name"]
    parts["method.name"] = gr.Radio(
        titles, value=name, label="Method", elem_id=dom_id("method.name"), elem_classes=["tf-field"]
    )
    blocks = {}
    for method in METHODS:
        own = [path for path in paths if path.startswith(f"method.{method.name}.")]
        with gr.Column(visible=method.name == name, elem_classes=["tf-method"]) as blocks[method.name]:
            for path in own[:2]:
                add(path)
            if own[2:]:
                with gr.Accordion(f"More about {method.title}", open=False):
                    for path in own[2:]:
                        add(path)
    for path in MAIN[3:]:
        add(path)
    _length(parts, values, add)
    with gr.Accordion("More settings", open=False):
        for title, blocks_of in GROUPS.items():
            gr.HTML(html_template=f"<p class='tf-group'>{title}</p>", js_on_load=None)
            for path in [path for path in paths if path not in parts and path.partition(".")[0] in blocks_of]:
                add(path)
        rest = [path for path in paths if path not in parts]
        gr.HTML(html_template="<p class='tf-group'>Precision, memory and the rest</p>", js_on_load=None)
        for path in rest:
            add(path)
    return Form(parts=parts, method_blocks=blocks, lookup=lookup, hub_data=data_card)


def _length(parts: dict[str, Any], values: dict[str, Any], add: Any) -> None:
    options = [STEPS, EPOCHS]
    parts[LENGTH] = gr.Radio(
        options, value=values[LENGTH], label="Train for", elem_id=dom_id(LENGTH), elem_classes=["tf-field"]
    )
    steps, epochs = add("max_steps"), add("num_epochs")
    steps.visible, epochs.visible = values[LENGTH] == STEPS, values[LENGTH] == EPOCHS


def fit_question(values: dict[str, Any]) -> gr.Dropdown:
    names = [this_machine().name, *(device.name for device in DEVICES)]
    return gr.Dropdown(
        list(dict.fromkeys(names)), value=values[WOULD_FIT_ON], label="Would it fit on",
        info="Only the estimate asks this; the run stays on this machine.", elem_id=dom_id(WOULD_FIT_ON),
        elem_classes=["tf-field"],
    )  # fmt: skip


def updates_for(form: Form, values: dict[str, Any]) -> list[Any]:
    """One update a component, so that the form shows these values; for reload and "Use these settings again"."""
    out = []
    for path in form.parts:
        value = values[path]
        if path in SLIDERS and isinstance(value, int):
            out.append(gr.update(value=value, maximum=max(SLIDERS[path], value)))
        elif path == "max_steps":
            out.append(gr.update(value=value, visible=values[LENGTH] == STEPS))
        elif path == "num_epochs":
            out.append(gr.update(value=value, visible=values[LENGTH] == EPOCHS))
        else:
            out.append(gr.update(value=value))
    return out + [gr.update(visible=name == values["method.name"]) for name in form.method_blocks]
