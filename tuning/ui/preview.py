"""What the form means before Start: tiles, memory bar, hints and faults, as one plain value for the page's script.

Comes in: the form's values and the run service.  Goes out: a dict; text in it is shown as text, never as markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict, cast

from tuning.core.errors import Notice, Problem, SettingsError, TuningError, counted
from tuning.core.hardware import this_machine
from tuning.data.preview.background_read import how_far, read_whole
from tuning.memory.what_if import DeviceSize
from tuning.methods import METHODS, method_named
from tuning.models.weights import compare_weights
from tuning.plan.checks import methods_refused
from tuning.plan.plan import Plan
from tuning.runs.service import NAME_LENGTH, Preview, RunService
from tuning.settings.schema import Settings
from tuning.ui import memory_bar as charts
from tuning.ui.form import dom_id, within
from tuning.ui.memory_bar import MemoryBar
from tuning.ui.network import NetworkView, network_value
from tuning.ui.values import (
    EPOCHS,
    LENGTH,
    RUN_NAME,
    WOULD_FIT_ON,
    Reading,
    every_path,
    first_values,
    readings,
    settings_from_values,
)

CHOSEN = ("model", "data.source", "task")
"""What notices are about: where one of these is another, those of before are not told of it."""
READ_SECONDS = 1.0
"""How long an answer waits for the rows to be read, before it says how far they are; the page then asks again."""


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


def preview_value(service: RunService, values: dict[str, Any]) -> PreviewValue:
    """Tiles, memory, hints and notices of these settings, or what is wrong with them. Nothing is started."""
    return told(values, lambda: _computed(service, values))


def told(values: dict[str, Any], compute: Callable[[], dict[str, Any]], pressed: bool = False) -> PreviewValue:
    """What `compute` gives; faults of the person's input become problems at their fields.

    Beside either stands how the fields were read, where that is not plain to see, and the model, data and task that the
    answer is `of`. `notices` are those of the settings as a whole: where these have faults, they are not known.
    """
    read = readings(values)
    hints = {dom_id(path): one.hint for path, one in read.items() if one.hint}
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
        "of": [values.get(path) for path in CHOSEN],
        "method": values["method.name"],
        "refused": methods_refused(values["task"]),
    }
    try:
        found = compute()
        own = {id: text for id, text in found.get("hints", {}).items() if text}
        both = {id: " ".join(filter(None, (own.get(id), hints.get(id)))) for id in (own | hints)}
        notices = [*_left_out(read), *found.get("notices", ())]
        placed = [placed_notice(one, values["method.name"]) for one in notices]
        return cast(PreviewValue, empty | found | {"hints": both, "notices": placed})
    except TuningError as error:
        empty["refused"] |= _others_refused(error)
        return cast(PreviewValue, empty | problems_at_fields(error, values["method.name"], values.get(LENGTH)))


def _others_refused(error: TuningError) -> dict[str, str]:
    """Where the chosen method is refused and the methods that can be taken are named: all others, as it is."""
    names = [method.name for method in METHODS]
    able = {name for problem in error.problems if problem.field == "method.name" for name in problem.limit.split(", ")}
    if not able or not able <= set(names):
        return {}
    return {name: "refused as the chosen one is, see below" for name in names if name not in able}


def _left_out(read: dict[str, Reading]) -> list[Notice]:
    """The empty lines of lists that have one text a line."""
    return [
        Notice(
            field=path,
            message=f"{one.left_out:,} empty {'line is' if one.left_out == 1 else 'lines are'} left out; "
            'a line with "" alone stands for an empty text.',
            count=one.left_out,
        )
        for path, one in read.items()
        if one.left_out
    ]


def placed_notice(notice: Notice, method: str) -> dict[str, Any]:
    """A notice with the form's field that it is about; None where the form has none."""
    path = field_of(notice.field, method)
    return notice.to_dict() | {"id": dom_id(path) if path else None}


def problems_at_fields(error: TuningError, method: str, length: str | None = None) -> dict[str, Any]:
    found, general, first = [], list[dict[str, Any]](), first_values()
    for problem in error.problems:
        path = field_of(problem.field, method)
        if path == "max_steps" and length == EPOCHS:  # the one of the two that is on the page
            path = "num_epochs"
        one = problem.trying(str(first.get(path or "", ""))).to_dict()
        if path is None:
            general.append(one)
        else:
            found.append(one | {"id": dom_id(path), "within": within(path)})
    return {"problems": found, "general": general or ([] if found else [{"field": "", "message": str(error)}])}


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


def _computed(service: RunService, values: dict[str, Any]) -> dict[str, Any]:
    asked = values.get(WOULD_FIT_ON)
    device = None if asked in (None, "", this_machine().name) else asked
    given = settings_from_values(values)
    settings = Settings.from_dict(given)
    if read_whole(settings.data, settings.task, settings.seed, READ_SECONDS) is None:
        return _not_yet("data.source", f"{how_far(settings.data)['words']}; the numbers follow.")
    if not service.weights_known(settings, READ_SECONDS):
        return _not_yet("model", "The names of its weights are being compared with the model's; the numbers follow.")
    preview = service.preview(given, device=device)
    run_name(values)
    plan, estimate = preview.plan, preview.estimate.to_dict()
    hints = {dom_id("model"): plan.model.missing or " ".join(plan.model.notes)}
    hints |= {
        dom_id(path): _automatic(plan, path, key)
        for path, key in WORKED_OUT.items()
        if not str(values[path] or "").strip()
    }
    weights = compare_weights(plan.model, settings.task, 0)
    return {
        "refused": methods_refused(settings.task, plan.model.shape, weights.new_pooler if weights else ()),
        "tiles": tiles(plan, preview.seconds),
        "memory": charts.memory_bar(estimate, preview.usage.plan.device.kind),
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


WORKED_OUT = {"optimizer.learning_rate": "learning_rate", "eval.every": "eval_every", "data.packing": "packing"}
"""Settings that the plan works out where they are left empty, and the number's name there."""


def _automatic(plan: Plan, path: str, key: str) -> str:
    """What the plan takes where the field is left empty, and why."""
    found = plan.derived[key]
    if every_path()[path].kind is bool:
        return f"Automatic: {found.origin}."
    return f"Empty takes {found.value:g}: {found.origin}"


def run_name(values: dict[str, Any]) -> str | None:
    """The name that stands in the form; None where a name is to be made. Raises SettingsError where it is too long."""
    name = str(values.get(RUN_NAME) or "").strip()
    if len(name) > NAME_LENGTH:
        limit = f"1 to {NAME_LENGTH} characters"
        raise SettingsError([Problem("name", name, limit, f"{len(name)} characters, of {limit}.")])
    return name or None


def _not_yet(field: str, words: str) -> dict[str, Any]:
    """What is shown while the page has to ask again; it looks at an answer only where that differs from the last."""
    return {"hints": {dom_id(field): words}, "reading": True, "moment": time.monotonic()}


COUNTS = ("tokens_per_update", "updates_per_epoch")


def count_text(value: float) -> str:
    for size, word in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _noun(key: str, count: float) -> str:
    """The count's name as a label under it: tokens per update, 1 update per epoch."""
    one, _, rest = key.replace("_", " ").partition(" ")
    return f"{one.removesuffix('s') if count == 1 else one} {rest}"


def seconds_text(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def tiles(plan: Plan, seconds: float | None) -> list[Tile]:
    """The numbers on top of the page, each with where it comes from as its tooltip."""
    settings = plan.settings
    if not method_named(settings.method.name).updates:
        return [
            {
                "value": count_text(plan.data.eval_rows),
                "label": "evaluation row" if plan.data.eval_rows == 1 else "evaluation rows",
                "title": "asked once, as they are put",
            },
            {"value": "0", "label": "trainable parameters", "title": "nothing is trained: one evaluation"},
        ]
    micro, steps, many = settings.micro_batch_size, settings.gradient_accumulation_steps, settings.num_devices
    cut = f"{micro} × {steps}" + (f" × {many}" if many > 1 else "")
    noun = "update" if plan.value("total_steps") == 1 else "updates"
    share, updates = 100 * plan.value("trainable_share"), plan.value("total_steps")
    found = [
        {"key": "effective_batch", "value": f"{cut} = {plan.value('effective_batch')}", "label": "effective batch"},
        *({"key": key, "value": count_text(plan.value(key)), "label": _noun(key, plan.value(key))} for key in COUNTS),
        {
            "key": "trainable_parameters",
            "value": count_text(plan.value("trainable_parameters")),
            "label": f"trainable parameters ({share:.3g}\u00a0%)",
        },
        {
            "key": "total_steps",
            "value": count_text(updates) if seconds is None else seconds_text(seconds),
            "label": f"{noun}; time not yet known" if seconds is None else f"for {counted(updates, 'update')}, roughly",
        },
    ]
    return [{"value": t["value"], "label": t["label"], "title": str(plan.derived[t["key"]].origin)} for t in found]
