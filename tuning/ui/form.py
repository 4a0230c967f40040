"""The form: every setting as a component, built from the settings' own fields.

Help, limits and defaults come from the fields of the settings, of each method and of each recipe; the lists of models
and data from their catalogues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from tuning.core.fields import Field
from tuning.core.hardware import DEVICES, this_machine
from tuning.data import data_catalogue, is_uploaded, short_name
from tuning.models.base_model import model_catalogue
from tuning.settings.optimizers import OPTIMIZERS
from tuning.ui.memory_bar import TASKS
from tuning.ui.values import (
    CHOSEN,
    EPOCHS,
    LENGTH,
    NO_RECIPE,
    NOT_SETTINGS,
    RUN_NAME,
    STEPS,
    WOULD_FIT_ON,
    Values,
    every_path,
)

FormField = gr.Textbox | gr.Dropdown | gr.Radio | gr.Checkbox
Update = Mapping[str, Any]
"""The answer of a listener for one component, as `gr.update` and `gr.skip` make it."""
AddField = Callable[[str], FormField]
"""Makes the component of the setting with that path, and adds it to the form."""

TERMS = {
    **TASKS,
    "causal_lm": f"{TASKS['causal_lm']} (causal LM)",
    "auto": "auto",
    "response": "the response",
    "all": "all tokens",
    "last_turn": "the last turn",
    **{optimizer.name: optimizer.title for optimizer in OPTIMIZERS},
    "stop": "refuse to start",
    "skip": "leave them out",
    "split": "split into blocks",
    "cut": "cut off",
    "seeded": "drawn by the seed",
    "first": "the first ones",
    "on": "on",
    "off": "off",
    "tokenizer": "as the tokenizer does",
    "config": "as config.json says",
    "fp32": "fp32",
    "autocast_bf16": "bf16 products (autocast)",
}
LABELS = {
    "method.name": "Method",
    "recipe.name": "Recipe",
    "revision": "Revision of a hub model",
    "task": "Task",
    "model": "Base model",
    "data.source": "Data",
    "micro_batch_size": "Micro-batch size",
    "gradient_accumulation_steps": "Accumulation steps",
    "optimizer.learning_rate": "Learning rate",
    "max_steps": "Updates (max_steps)",
    "num_epochs": "Epochs (num_epochs)",
    "schedule.name": "Schedule",
    "optimizer.name": "Optimizer",
    "data.max_seq_length": "Maximum sequence length",
    "data.loss_on": "Loss on",
    "attention": "Attention",
    "eval.every": "Evaluate every (updates)",
    "eval.patience": "Early-stopping patience",
    "save.every": "Checkpoint every (updates)",
    "save.every_seconds": "Checkpoint every (seconds)",
    "method.r": "Rank r",
    "method.alpha": "Alpha",
    "method.rslora": "rsLoRA",
    "method.dora": "DoRA",
    "optimizer.max_grad_norm": "Maximum gradient norm",
    "schedule.min_lr_ratio": "Minimum learning rate ratio",
    "data.train_rows": "Training rows",
    "data.eval_rows": "Evaluation rows",
    "sample.every": "Try the prompts every (updates)",
    "sample.prompts": "Prompts to try during training, one a line (\\n breaks it)",
    "eval.max_new_tokens": "Longest answer (tokens)",
    "save.keep": "Checkpoints kept",
    "data.columns": "Columns (JSON)",
    "data.label_names": "Label names, one a line (\\n breaks it)",
    "data.bad_rows": "Bad rows",
    "data.format": "File format",
    "data.separator": "Between prompt and completion",
    "data.chat_template": "Prompts in the chat template",
    "data.special_tokens": "Begin and end tokens",
    "data.long_text": "Long texts",
    "data.row_choice": "Which rows",
    "data.packing": "Packing",
}
SHORT = {
    "micro_batch_size": "rows at once",
    "gradient_accumulation_steps": "added up each update",
}
AUTOMATIC = ("optimizer.learning_rate", "eval.every")
"""Numbers that the plan computes when their fields are empty."""
NO_CORRECTION = gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off", autocomplete="off")
"""For text boxes: what is typed is a setting, which no browser and no keyboard may correct."""
MAIN = ("task", "model", "data.source", "micro_batch_size", "gradient_accumulation_steps", "optimizer.learning_rate")
GROUPS = {
    "Optimizer and schedule": ("optimizer", "schedule"),
    "Data": ("data",),
    "Evaluation, checkpoints, samples": ("eval", "save", "sample"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The components of the form."""

    fields: dict[str, FormField]
    """By the path of their setting; those of a method by `method.NAME.FIELD`, of a recipe likewise."""
    blocks: dict[str, gr.Column]
    """What is in sight for one choice only, by `method.NAME` and `recipe.NAME`."""

    def values(self, given: tuple[object, ...]) -> Values:
        """What the fields hold, by path, from the arguments of a listener that has all fields as its inputs."""
        return dict(zip(self.fields, given, strict=True))

    def outputs(self) -> list[gr.blocks.Block]:
        """The outputs of a listener that returns `updates_for`."""
        return [*self.fields.values(), *self.blocks.values()]


def dom_id(path: str) -> str:
    """The id of a field's element in the document."""
    return "f-" + path.replace(".", "-")


def label_of(path: str, field: Field) -> str:
    """What stands over the field."""
    return LABELS.get(field.path) or path.split(".")[-1].replace("_", " ").capitalize()


def _component(path: str, field: Field, value: Any) -> FormField:
    common: dict[str, Any] = {
        "label": label_of(path, field),
        "elem_id": dom_id(path),
        "elem_classes": ["tf-field"],
        "info": SHORT.get(path, field.help),
    }
    if path == "model":
        options = [(model.title, model.spec) for model in model_catalogue()]
        return gr.Dropdown(options, value=value, allow_custom_value=True, **common)
    if path == "data.source":
        return gr.Dropdown(data_choices(value), value=value, allow_custom_value=True, **common)
    if field.limit.choices:
        return _choice(field, value, common)
    if field.kind is bool and field.nullable:
        return gr.Radio([("automatic", ""), ("yes", "true"), ("no", "false")], value=value, **common)
    if field.kind is bool:
        return gr.Checkbox(value=value, **common)
    lines = 2 if field.kind is tuple and not field.default else 1
    empty = "automatic" if path in AUTOMATIC else "empty" if field.nullable else ""
    return gr.Textbox(value=value, lines=lines, max_lines=6, placeholder=empty, html_attributes=NO_CORRECTION, **common)


def _choice(field: Field, value: Any, common: dict[str, Any]) -> FormField:
    """A component that offers the choices of a setting: buttons for up to three, and a list for more."""
    options = [(TERMS.get(choice, choice), choice) for choice in field.limit.choices]
    if field.limit.open or field.listed:
        return gr.Dropdown(options, value=value, allow_custom_value=True, **common)
    kind = gr.Radio if len(options) <= 3 else gr.Dropdown
    return kind(options, value=value, **common)


NOT_IN_FORM = {"max_new_tokens": "New tokens", "temperature": "Temperature", "prompts": "Prompt", "note": "Note"}
"""What the page asks besides settings, in the words of its own fields."""


def page_labels() -> dict[str, str]:
    """The page's name of each setting, by its path in the settings."""
    labels = {field.path: label_of(path, field) for path, field in every_path().items()}
    # in messages these stand without the block they are of
    bare = {path.rpartition(".")[2]: label for path, label in labels.items() if path.startswith("method.")}
    bare = {name: label for name, label in bare.items() if "_" in name}
    bare["max_seq_length"] = labels["data.max_seq_length"]
    return NOT_IN_FORM | {"name": "Run name"} | bare | LABELS | labels


def page_terms() -> dict[str, dict[str, str]]:
    """What the page calls each choice of a setting, by the setting's path and the choice's name in the settings."""
    terms: dict[str, dict[str, str]] = {"method.name": {method.name: method.title for method in CHOSEN["method"]}}
    for field in every_path().values():
        if field.kind is bool:
            names = ("yes", "no") if field.nullable else ("on", "off")
            terms[field.path] = dict(zip(("true", "false"), names, strict=True))
        elif field.limit.choices:
            terms[field.path] = {choice: TERMS[choice] for choice in field.limit.choices if choice in TERMS}
    return {path: names for path, names in terms.items() if names}


def data_choices(source: object) -> list[tuple[str, str]]:
    """What the list of data offers: the bundled sets, and a file that was uploaded under its own name."""
    cards = [(str(card.get("title", card["name"])), card["name"]) for card in data_catalogue()]
    if isinstance(source, str) and is_uploaded(source):
        cards.append((f"{short_name(source)} (uploaded)", source))
    return cards


def build_form(values: Values, after: Callable[[str], None]) -> Form:
    """Lays the form out in the Blocks that are open; all fields but those of MAIN, method and length are folded away.

    `after` is called with the path of each of the first fields, to add what belongs below it.
    """
    paths = every_path()
    fields: dict[str, FormField] = {}

    def add(path: str) -> FormField:
        fields[path] = _component(path, paths[path], values[path])
        return fields[path]

    for path in MAIN[:3]:
        add(path)
        after(path)
    blocks = _add_choice("method", "Method", fields, values, add)
    with gr.Row(elem_classes=["tf-pair"]):
        for path in MAIN[3:5]:
            add(path)
    for path in MAIN[5:]:
        add(path)
    _add_length(fields, values, add)
    with gr.Accordion(MORE, open=False):
        blocks |= _add_choice("recipe", "Recipe: a way to prepare the rows", fields, values, add)
        for title, settings_blocks in GROUPS.items():
            gr.HTML(html_template=f"<p class='tf-group'>{title}</p>", js_on_load=None)
            for path in [path for path in paths if path not in fields and path.partition(".")[0] in settings_blocks]:
                add(path)
        rest = [path for path in paths if path not in fields]
        gr.HTML(html_template="<p class='tf-group'>Precision, memory and the rest</p>", js_on_load=None)
        for path in rest:
            add(path)
    fields[WOULD_FIT_ON] = _device_field(values)
    return Form(fields=fields, blocks=blocks)


def _add_choice(
    kind: str, label: str, fields: dict[str, FormField], values: Values, add: AddField
) -> dict[str, gr.Column]:
    """A choice, and the settings of each alternative; the first two in sight, the rest under "More about"."""
    common: dict[str, Any] = {"elem_id": dom_id(f"{kind}.name"), "elem_classes": ["tf-field"]}
    titles = [(choice.title, choice.name) for choice in CHOSEN[kind]]
    if kind == "recipe":
        titles.insert(0, ("none", NO_RECIPE))
        common["info"] = " ".join(f"{recipe.title}: {recipe.card}" for recipe in CHOSEN[kind])
    fields[f"{kind}.name"] = gr.Radio(titles, value=values[f"{kind}.name"], label=label, **common)
    blocks = {}
    for choice in CHOSEN[kind]:
        name = f"{kind}.{choice.name}"
        paths = _paths_of(name)
        with gr.Column(visible=choice.name == values[f"{kind}.name"], elem_classes=["tf-method"]) as blocks[name]:
            for path in paths[:2]:
                add(path)
            if paths[2:]:
                with gr.Accordion(more_about(choice.title), open=False):
                    for path in paths[2:]:
                        add(path)
    return blocks


def _paths_of(choice: str) -> list[str]:
    """The fields of one alternative, such as `method.lora`."""
    return [path for path in every_path() if path.startswith(f"{choice}.")]


MORE = "More settings"


def within(path: str) -> list[str]:
    """The parts of the form that have to be open for this field to be seen, from the outer to the inner one."""
    if path in (*MAIN, "method.name", "max_steps", "num_epochs", *NOT_SETTINGS):
        return []
    kind, _, rest = path.partition(".")
    accordions = [] if kind == "method" else [MORE]
    if kind in CHOSEN and path != f"{kind}.name":
        name = rest.partition(".")[0]
        if path not in _paths_of(f"{kind}.{name}")[:2]:
            accordions.append(more_about(next(choice.title for choice in CHOSEN[kind] if choice.name == name)))
    return accordions


def more_about(title: str) -> str:
    """The title of the accordion with the further settings of a method or recipe."""
    return f"More about {title}"


def shown_blocks(form: Form, *chosen: str) -> list[Update]:
    """One update a block, which shows those of `chosen` alone: a method and a recipe, in the order of `CHOSEN`."""
    names = {f"{kind}.{name}" for kind, name in zip(CHOSEN, chosen, strict=True)}
    return [gr.update(visible=name in names) for name in form.blocks]


def _add_length(fields: dict[str, FormField], values: Values, add: AddField) -> None:
    options = [STEPS, EPOCHS]
    fields[LENGTH] = gr.Radio(
        options, value=values[LENGTH], label="Train for", elem_id=dom_id(LENGTH), elem_classes=["tf-field"]
    )
    steps, epochs = add("max_steps"), add("num_epochs")
    steps.visible, epochs.visible = values[LENGTH] == STEPS, values[LENGTH] == EPOCHS


def _device_field(values: Values) -> gr.Dropdown:
    """The device that the estimate is for."""
    names = [this_machine().name, *(device.name for device in DEVICES)]
    return gr.Dropdown(
        list(dict.fromkeys(names)),
        value=values[WOULD_FIT_ON],
        label="Would it fit on",
        info="Only the estimate asks this; the run stays on this machine.",
        elem_id=dom_id(WOULD_FIT_ON),
        elem_classes=["tf-field"],
    )


def run_name_field() -> gr.Textbox:
    """The name of the next run, which stands over Start and not among the settings."""
    return gr.Textbox(
        placeholder="Run name (optional)",
        label="Run name",
        show_label=False,
        container=False,
        elem_id=dom_id(RUN_NAME),
        elem_classes=["tf-field"],
        html_attributes=NO_CORRECTION,
    )


def updates_for(form: Form, values: Values) -> list[Update]:
    """One update for each of `form.outputs()`, so that the form shows these values."""
    updates = list[Update]()
    for path in form.fields:
        value = values[path]
        if path == "max_steps":
            updates.append(gr.update(value=value, visible=values[LENGTH] == STEPS))
        elif path == "num_epochs":
            updates.append(gr.update(value=value, visible=values[LENGTH] == EPOCHS))
        elif path == "data.source":
            updates.append(gr.update(value=value, choices=data_choices(value)))
        else:
            updates.append(gr.update(value=value))
    return updates + shown_blocks(form, *(values[f"{kind}.name"] for kind in CHOSEN))
