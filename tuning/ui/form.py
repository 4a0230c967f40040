"""The form: every setting as a component, built from the settings' own fields.

Comes in: the fields (help, limits, defaults) of `settings`, of each method and recipe, the catalogues of models and
data, the values to show.  Goes out: components by path, and the updates that make them show other values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from tuning.core.fields import Field
from tuning.core.hardware import DEVICES, this_machine
from tuning.data import data_catalogue, is_uploaded, short_name
from tuning.models.base_model import model_catalogue
from tuning.settings.optimizers import OPTIMIZERS
from tuning.ui.memory_bar import TASKS
from tuning.ui.models import hub_data, models
from tuning.ui.values import CHOSEN, EPOCHS, LENGTH, NO_RECIPE, NOT_SETTINGS, STEPS, WOULD_FIT_ON, every_path

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
    "sample.every": "Answer the prompts every (updates)",
    "sample.prompts": "Sample prompts, one a line (\\n breaks it)",
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
"""Numbers that the plan works out where they are left empty."""
AS_TYPED = gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off", autocomplete="off")
"""What is typed is a setting: no browser or keyboard mends it."""
MAIN = ("task", "model", "data.source", "micro_batch_size", "gradient_accumulation_steps", "optimizer.learning_rate")
GROUPS = {
    "Optimizer and schedule": ("optimizer", "schedule"),
    "Data": ("data",),
    "Evaluation, checkpoints, samples": ("eval", "save", "sample"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The components by the path of their setting; those of a method by `method.NAME.FIELD`, of a recipe likewise."""

    parts: dict[str, Any]
    blocks: dict[str, gr.Column]
    """What is shown for one choice only, by `method.NAME` and `recipe.NAME`."""
    lookup: gr.HTML
    hub_data: gr.HTML
    """Look up, under the model field."""

    def values(self, given: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.parts, given, strict=True))


def dom_id(path: str) -> str:
    return "f-" + path.replace(".", "-")


def label_of(path: str, field: Field) -> str:
    known = LABELS.get(field.path)
    return known or path.split(".")[-1].replace("_", " ").capitalize()


def _component(path: str, field: Field, value: Any) -> gr.components.Component:
    look: dict[str, Any] = {
        "label": label_of(path, field),
        "elem_id": dom_id(path),
        "elem_classes": ["tf-field"],
        "info": SHORT.get(path, field.help),
    }
    if path == "model":
        options = [(f"{model.title}", model.spec) for model in model_catalogue()]
        return gr.Dropdown(options, value=value, allow_custom_value=True, **look)
    if path == "data.source":
        return gr.Dropdown(data_choices(value), value=value, allow_custom_value=True, **look)
    if field.limit.choices:
        options = [(TERMS.get(word, word), word) for word in field.limit.choices]
        if field.limit.open or field.listed:
            return gr.Dropdown(options, value=value, allow_custom_value=True, **look)
        kind = gr.Radio if len(options) <= 3 else gr.Dropdown
        return kind(options, value=value, **look)
    if field.kind is bool and field.nullable:
        return gr.Radio([("automatic", ""), ("yes", "true"), ("no", "false")], value=value, **look)
    if field.kind is bool:
        return gr.Checkbox(value=value, **look)
    lines = 2 if field.kind is tuple and not field.default else 1
    empty = "automatic" if path in AUTOMATIC else "empty" if field.nullable else ""
    return gr.Textbox(value=value, lines=lines, max_lines=6, placeholder=empty, html_attributes=AS_TYPED, **look)


NOT_IN_FORM = {"max_new_tokens": "New tokens", "temperature": "Temperature", "prompts": "Prompt", "note": "Note"}
"""What the page asks besides settings, in the words of its own fields."""


def page_labels() -> dict[str, str]:
    """The page's name of each setting, by its path in the settings."""
    found = {field.path: label_of(path, field) for path, field in every_path().items()}
    # in messages these stand without the block they are of
    bare = {path.rpartition(".")[2]: label for path, label in found.items() if path.startswith("method.")}
    bare = {name: label for name, label in bare.items() if "_" in name}
    bare["max_seq_length"] = found["data.max_seq_length"]
    return NOT_IN_FORM | {"name": "Run name"} | bare | LABELS | found


def page_terms() -> dict[str, dict[str, str]]:
    """How the page calls what can be chosen, by the setting's path and the word of the settings."""
    found: dict[str, dict[str, str]] = {"method.name": {method.name: method.title for method in CHOSEN["method"]}}
    for field in every_path().values():
        if field.kind is bool:
            words = ("yes", "no") if field.nullable else ("on", "off")
            found[field.path] = dict(zip(("true", "false"), words, strict=True))
        elif field.limit.choices:
            found[field.path] = {word: TERMS[word] for word in field.limit.choices if word in TERMS}
    return {path: words for path, words in found.items() if words}


def data_choices(source: Any) -> list[tuple[str, str]]:
    """What the list of data offers: the bundled sets, and a file that was uploaded under its own name."""
    cards = [(str(card.get("title", card["name"])), card["name"]) for card in data_catalogue()]
    if isinstance(source, str) and is_uploaded(source):
        cards.append((f"{short_name(source)} (uploaded)", source))
    return cards


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
    blocks = _choice("method", "Method", parts, values, add)
    with gr.Row(elem_classes=["tf-pair"]):
        for path in MAIN[3:5]:
            add(path)
    for path in MAIN[5:]:
        add(path)
    _length(parts, values, add)
    with gr.Accordion(MORE, open=False):
        blocks |= _choice("recipe", "Recipe: a way to prepare the rows", parts, values, add)
        for title, blocks_of in GROUPS.items():
            gr.HTML(html_template=f"<p class='tf-group'>{title}</p>", js_on_load=None)
            for path in [path for path in paths if path not in parts and path.partition(".")[0] in blocks_of]:
                add(path)
        rest = [path for path in paths if path not in parts]
        gr.HTML(html_template="<p class='tf-group'>Precision, memory and the rest</p>", js_on_load=None)
        for path in rest:
            add(path)
    return Form(parts=parts, blocks=blocks, lookup=lookup, hub_data=data_card)


def _choice(kind: str, label: str, parts: dict[str, Any], values: dict[str, Any], add: Any) -> dict[str, gr.Column]:
    """A choice, and the settings of each alternative; the first two in sight, the rest under "More about"."""
    look: dict[str, Any] = {"elem_id": dom_id(f"{kind}.name"), "elem_classes": ["tf-field"]}
    titles = [(choice.title, choice.name) for choice in CHOSEN[kind]]
    if kind == "recipe":
        titles.insert(0, ("none", NO_RECIPE))
        look["info"] = " ".join(f"{recipe.title}: {recipe.card}" for recipe in CHOSEN[kind])
    parts[f"{kind}.name"] = gr.Radio(titles, value=values[f"{kind}.name"], label=label, **look)
    blocks = {}
    for choice in CHOSEN[kind]:
        name = f"{kind}.{choice.name}"
        own = [path for path in every_path() if path.startswith(f"{name}.")]
        with gr.Column(visible=choice.name == values[f"{kind}.name"], elem_classes=["tf-method"]) as blocks[name]:
            for path in own[:2]:
                add(path)
            if own[2:]:
                with gr.Accordion(more_about(choice.title), open=False):
                    for path in own[2:]:
                        add(path)
    return blocks


MORE = "More settings"


def within(path: str) -> list[str]:
    """The parts of the form that have to be open for this field to be seen, from the outer to the inner one."""
    if path in (*MAIN, "method.name", "max_steps", "num_epochs", *NOT_SETTINGS):
        return []
    kind, _, rest = path.partition(".")
    found = [] if kind == "method" else [MORE]
    if kind in CHOSEN and path != f"{kind}.name":
        name = rest.partition(".")[0]
        own = [one for one in every_path() if one.startswith(f"{kind}.{name}.")]
        if path not in own[:2]:
            found.append(more_about(next(choice.title for choice in CHOSEN[kind] if choice.name == name)))
    return found


def more_about(title: str) -> str:
    return f"More about {title}"


def shown_blocks(form: Form, *chosen: str) -> list[Any]:
    """One update a block: only those of the choices, in the order of `CHOSEN`, are to be seen."""
    names = {f"{kind}.{name}" for kind, name in zip(CHOSEN, chosen, strict=True)}
    return [gr.update(visible=name in names) for name in form.blocks]


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
        list(dict.fromkeys(names)),
        value=values[WOULD_FIT_ON],
        label="Would it fit on",
        info="Only the estimate asks this; the run stays on this machine.",
        elem_id=dom_id(WOULD_FIT_ON),
        elem_classes=["tf-field"],
    )


def updates_for(form: Form, values: dict[str, Any]) -> list[Any]:
    """One update a component, so that the form shows these values; for reload and "Use these settings again"."""
    out = []
    for path in form.parts:
        value = values[path]
        if path == "max_steps":
            out.append(gr.update(value=value, visible=values[LENGTH] == STEPS))
        elif path == "num_epochs":
            out.append(gr.update(value=value, visible=values[LENGTH] == EPOCHS))
        elif path == "data.source":
            out.append(gr.update(value=value, choices=data_choices(value)))
        else:
            out.append(gr.update(value=value))
    return out + shown_blocks(form, *(values[f"{kind}.name"] for kind in CHOSEN))
