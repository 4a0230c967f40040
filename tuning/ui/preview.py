"""The preview of a run: tiles, memory bar, network, hints, notices and problems of the settings in the form.

It is one JSON value for the page's script, which shows text in it as text and never as markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict, cast

import gradio as gr

from tuning.core.errors import Notice, Problem, SettingsError, TuningError, counted
from tuning.core.hardware import this_machine
from tuning.core.quantities import count_text, duration_text
from tuning.data.preview.background_read import read_whole, reading_progress
from tuning.memory.what_if import DeviceSize
from tuning.methods import METHODS, method_named
from tuning.models.weights import compare_weights
from tuning.plan.checks import methods_refused
from tuning.plan.plan import Plan
from tuning.runs.service import NAME_LENGTH, Preview, RunService
from tuning.settings.schema import Settings
from tuning.ui.field_text import ParsedField
from tuning.ui.form import dom_id, within
from tuning.ui.hub_cards import DATA_CARD, MODEL_CARD
from tuning.ui.memory_bar import MemoryBar, memory_bar
from tuning.ui.network import NetworkView, network_value
from tuning.ui.sections import EVENT_OPTIONS, Page, Region, Section
from tuning.ui.values import (
    EPOCHS,
    LENGTH,
    RUN_NAME,
    WOULD_FIT_ON,
    Values,
    every_path,
    first_values,
    parsed_fields,
    settings_from_values,
)

SUBJECT = ("model", "data.source", "task")
"""The settings that notices are about: the page shows none of the notices of another model, data set or task."""
READ_SECONDS = 1.0
"""How long an answer waits for the rows to be read, before it reports how many are; the page then asks again."""


class Tile(TypedDict):
    """A number on top of the page, what it is, and where it comes from."""

    value: str
    label: str
    title: str


class PlacedNotice(TypedDict):
    """A notice with the id of the form's field that it is about; None where the form has none."""

    field: str
    message: str
    count: int | None
    id: str | None


class FieldProblem(TypedDict):
    """A problem with the id of its field, and the parts of the form that have to be open for it to be seen."""

    field: str
    value: Any
    limit: str
    message: str
    id: str
    within: list[str]


class MemoryQuestion(TypedDict):
    """What the page needs to ask POST /fork/memory with, when "More about memory" is opened."""

    settings: dict[str, Any]
    device: DeviceSize
    kind: str
    pending: bool


class PreviewValue(TypedDict):
    """What the page shows of the settings in the form; what cannot be computed is None.

    `hints` are by field, `general` are the problems without one, `of` is the model, data and task that the answer is
    about, and `refused` are the reasons by method. `reading` says to ask again soon; `moment` makes each such answer
    another one.
    """

    problems: list[FieldProblem]
    general: list[dict[str, Any]]
    hints: dict[str, str]
    tiles: list[Tile] | None
    memory: MemoryBar | None
    network: NetworkView | None
    outlook: MemoryQuestion | None
    device: str | None
    notices: list[PlacedNotice]
    reading: bool
    moment: NotRequired[float]
    pressed: bool
    of: list[Any]
    method: str
    refused: dict[str, str]


def preview_value(service: RunService, values: Values) -> PreviewValue:
    """Tiles, memory, hints and notices of these settings, or what is wrong with them. Nothing is started."""
    return answer_or_problems(values, lambda: _computed(service, values))


def answer_or_problems(values: Values, compute: Callable[[], dict[str, Any]], pressed: bool = False) -> PreviewValue:
    """What `compute` returns; the problems of a TuningError that it raises stand at their fields.

    Either has hints at fields whose text was not read word for word, and in `of` the model, data and task that it is
    about. `notices` are those of the settings as a whole: there are none where the settings have problems.
    """
    parsed = parsed_fields(values)
    hints = {dom_id(path): field.hint for path, field in parsed.items() if field.hint}
    empty: dict[str, Any] = {
        "problems": [],
        "general": [],
        "hints": hints,
        "tiles": None,
        "memory": None,
        "network": None,
        "outlook": None,
        "device": None,
        "notices": [],
        "reading": False,
        "pressed": pressed,
        "of": [values.get(path) for path in SUBJECT],
        "method": values["method.name"],
        "refused": methods_refused(values["task"]),
    }
    try:
        answer = compute()
        own = {id: text for id, text in answer.get("hints", {}).items() if text}
        both = {id: " ".join(filter(None, (own.get(id), hints.get(id)))) for id in (own | hints)}
        notices = [*_empty_lines(parsed), *answer.get("notices", ())]
        placed = [placed_notice(notice, values["method.name"]) for notice in notices]
        return cast(PreviewValue, empty | answer | {"hints": both, "notices": placed})
    except TuningError as error:
        empty["refused"] |= _others_refused(error)
        return cast(PreviewValue, empty | problems_at_fields(error, values["method.name"], values.get(LENGTH)))


def _others_refused(error: TuningError) -> dict[str, str]:
    """The reason by method, where the chosen one is refused and the problem names those that are possible instead."""
    names = [method.name for method in METHODS]
    limits = [problem.limit for problem in error.problems if problem.field == "method.name"]
    possible = {name for limit in limits for name in limit.split(", ")}
    if not possible or not possible <= set(names):
        return {}
    return {name: "refused for the reason below" for name in names if name not in possible}


def _empty_lines(parsed: dict[str, ParsedField]) -> list[Notice]:
    """A notice for each list of texts in which empty lines were left out."""
    return [
        Notice(
            field=path,
            message=f"{field.empty_lines:,} empty {'line is' if field.empty_lines == 1 else 'lines are'} left out; "
            'a line with "" alone stands for an empty text.',
            count=field.empty_lines,
        )
        for path, field in parsed.items()
        if field.empty_lines
    ]


def placed_notice(notice: Notice, method: str) -> dict[str, Any]:
    """A notice with the form's field that it is about; None where the form has none."""
    path = field_of(notice.field, method)
    return notice.to_dict() | {"id": dom_id(path) if path else None}


def problems_at_fields(error: TuningError, method: str, length: str | None = None) -> dict[str, Any]:
    """The problems of an error: `problems` with the id of their field in the form, `general` without one."""
    problems, general, first = list[dict[str, Any]](), list[dict[str, Any]](), first_values()
    for problem in error.problems:
        path = field_of(problem.field, method)
        if path == "max_steps" and length == EPOCHS:  # the one of the two that is on the page
            path = "num_epochs"
        plain = problem.trying(str(first.get(path or "", ""))).to_dict()
        if path is None:
            general.append(plain)
        else:
            problems.append(plain | {"id": dom_id(path), "within": within(path)})
    if not problems and not general:
        general.append({"field": "", "message": str(error)})
    return {"problems": problems, "general": general}


def field_of(name: str, method: str) -> str | None:
    """The form's path for a field named in a problem; a whole block stands for its first field."""
    paths = [*every_path(), "method.name", "recipe.name", WOULD_FIT_ON, RUN_NAME]
    if name.startswith("method.") and name != "method.name":
        name = f"method.{method}.{name.removeprefix('method.')}"
    if name in ("data", "eval", "save", "sample", "optimizer", "schedule"):
        name = next(path for path in paths if path.startswith(name + "."))
    if name.startswith("recipe.") and name != "recipe.name":
        name = next((path for path in paths if path.startswith("recipe.") and path.endswith(name[6:])), name)
    own = {"method": "method.name", "recipe": "recipe.name", "device_name": WOULD_FIT_ON, "name": RUN_NAME}
    name = own.get(name, name)
    return name if name in paths else None


def _computed(service: RunService, values: Values) -> dict[str, Any]:
    chosen = values.get(WOULD_FIT_ON)
    device = None if chosen in (None, "", this_machine().name) else chosen
    given = settings_from_values(values)
    settings = Settings.from_dict(given)
    if read_whole(settings.data, settings.task, settings.seed, READ_SECONDS) is None:
        return _not_yet("data.source", f"{reading_progress(settings.data)['words']}; the numbers follow.")
    if not service.wait_for_weight_check(settings, READ_SECONDS):
        return _not_yet("model", "The names of its weights are being compared with the model's; the numbers follow.")
    preview = service.preview(given, device=device)
    run_name(values)
    plan = preview.plan
    hints = {dom_id("model"): plan.model.missing or " ".join(plan.model.notes)}
    hints |= {
        dom_id(path): _automatic(plan, path, key)
        for path, key in AUTOMATIC.items()
        if not str(values[path] or "").strip()
    }
    weights = compare_weights(plan.model, settings.task, 0)
    return {
        "refused": methods_refused(settings.task, plan.model.shape, weights.new_pooler if weights else ()),
        "tiles": tiles(plan, preview.seconds),
        "memory": memory_bar(preview.estimate, preview.usage.plan.device.kind),
        "network": network_value(plan),
        "outlook": _outlook(preview),
        "device": device,
        "hints": hints,
        "notices": plan.notices,
    }


def _outlook(preview: Preview) -> MemoryQuestion:
    device = preview.usage.plan.device
    return {
        "settings": preview.plan.settings.to_dict(),
        "device": {"name": device.name, "bytes": device.total_bytes},
        "kind": preview.estimate.kind,
        "pending": preview.pending,
    }


AUTOMATIC = {"optimizer.learning_rate": "learning_rate", "eval.every": "eval_every", "data.packing": "packing"}
"""By setting that the plan decides where its field is empty: the name of the number in the plan."""


def _automatic(plan: Plan, path: str, key: str) -> str:
    """What the plan takes where the field is empty, and why."""
    derived = plan.derived[key]
    if every_path()[path].kind is bool:
        return f"Automatic: {derived.origin}."
    return f"Empty takes {derived.value:g}: {derived.origin}"


def run_name(values: Values) -> str | None:
    """The name in the form; None where the service makes one. Raises SettingsError where it is too long."""
    name = str(values.get(RUN_NAME) or "").strip()
    if len(name) > NAME_LENGTH:
        limit = f"1 to {NAME_LENGTH} characters"
        raise SettingsError([Problem("name", name, limit, f"{len(name)} characters, of {limit}.")])
    return name or None


def _not_yet(field: str, words: str) -> dict[str, Any]:
    """The answer while rows or weights are still read: the page shows it and asks again."""
    # Gradio sends a value only where it differs from the last one
    return {"hints": {dom_id(field): words}, "reading": True, "moment": time.monotonic()}


COUNTS = ("tokens_per_update", "updates_per_epoch")


def _noun(key: str, count: float) -> str:
    """The label of a count, from the name of the number in the plan: tokens per update, update per epoch."""
    noun, _, rest = key.replace("_", " ").partition(" ")
    return f"{noun.removesuffix('s') if count == 1 else noun} {rest}"


def tiles(plan: Plan, seconds: float | None) -> list[Tile]:
    """The numbers on top of the page, each with where it comes from as its tooltip."""
    settings = plan.settings
    if not method_named(settings.method.name).updates:
        return [
            {
                "value": count_text(plan.data.eval_rows),
                "label": "evaluation row" if plan.data.eval_rows == 1 else "evaluation rows",
                "title": "evaluated once, unchanged",
            },
            {"value": "0", "label": "trainable parameters", "title": "nothing is trained: one evaluation"},
        ]
    micro, steps, devices = settings.micro_batch_size, settings.gradient_accumulation_steps, settings.num_devices
    product = f"{micro} × {steps}" + (f" × {devices}" if devices > 1 else "")
    share, updates = 100 * plan.value("trainable_share"), plan.value("total_steps")
    noun = "update" if updates == 1 else "updates"
    shown = {  # by name of the number in the plan: text and label
        "effective_batch": (f"{product} = {plan.value('effective_batch')}", "effective batch"),
        **{key: (count_text(plan.value(key)), _noun(key, plan.value(key))) for key in COUNTS},
        "trainable_parameters": (
            count_text(plan.value("trainable_parameters")),
            f"trainable parameters ({share:.3g}\u00a0%)",
        ),
        "total_steps": (
            (count_text(updates), f"{noun}; run once to learn how long")
            if seconds is None
            else (duration_text(seconds), f"for {counted(updates, 'update')}, roughly")
        ),
    }
    return [
        {"value": value, "label": label, "title": plan.derived[key].origin} for key, (value, label) in shown.items()
    ]


def _connect(page: Page) -> None:
    """The preview is made anew when the page is loaded, a field has changed, or more is known of the same settings."""
    fields, preview = list(page.form.fields.values()), page.components[PREVIEW]

    def show(*given: object) -> PreviewValue:
        return preview_value(page.service, page.form.values(given))

    triggers = [page.blocks.load, *(field.change for field in fields)]
    gr.on(triggers, show, fields, preview, trigger_mode="always_last", **EVENT_OPTIONS)
    for event in (
        preview.traced,
        page.components[MODEL_CARD].downloaded,
        page.components[DATA_CARD].downloaded,
    ):
        event(show, fields, preview, **EVENT_OPTIONS)


PREVIEW = Section(
    kind="preview",
    name="Preview of the run",
    region=Region.MAIN,
    events=("traced",),
    initial_value=preview_value,
    connect=_connect,
)
BEFORE_START = Section(
    kind="before_start",
    name="Before you start",
    region=Region.ABOVE_START,
    script_sets_label=True,
    has_script=False,
)
"""The notices of the settings. The script of the preview fills it, for both show one answer."""
