"""A check before Start that the weights in a folder are the model's, where a library would load others silently.

The comparison is the library's own (`torch_weights`). It is made in a child process, once for each folder and task, and
its report is cached: importing the libraries takes seconds, and a key press must not.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuning.core.child_process import Child
from tuning.core.errors import ModelError, Notice, counted
from tuning.core.files import FileCache
from tuning.core.paths import assets_folder
from tuning.models.architectures import transformers_version
from tuning.models.base_model import BaseModel, config_class_names
from tuning.models.tensors import first_names

REPORT_VERSION = 1
"""The version of the reports, part of their cache key: raise it when reports say more or otherwise."""
SHIPPED = "models/weights.json"
_CACHE = FileCache(name="weights", suffix=".json", limit_bytes=2**28)
_ANSWER_SECONDS = 120.0
_RENAMED = (
    (re.compile(r"(^|\.)_orig_mod\."), "a compiled model was saved; save model._orig_mod instead"),
    (re.compile(r"^module\."), "a model was saved inside its DataParallel wrapper; save model.module instead"),
    (re.compile(r"(^|\.)_(fsdp_wrapped|checkpoint_wrapped)_module\."), "a wrapped model was saved; unwrap it first"),
    (
        re.compile(r"^base_model\.model\.|\.lora_[AB]\.|\.base_layer\."),
        "a model with an adapter was saved whole; merge it first with merge_and_unload, and save that",
    ),
)
"""Names that show how a file was saved, with what to do."""
_LAYER = re.compile(r"\.(\d+)\.")
_POOLER = re.compile(r"(^|\.)pooler\.|^head\.")
"""Names in the layer that some kinds have between body and head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How a folder's tensors fit a model for a task."""

    notices: tuple[Notice, ...]
    new_pooler: tuple[str, ...]
    """Tensors of the layer between body and head that the file lacks: they begin at random values, as the head does."""
    head_for: tuple[str, ...]
    """The classes of the file's own head, as config.json names them, in the order of their numbers; empty where the
    file has no head for classes."""


def compare_weights(model: BaseModel, task: str, seconds: float | None = None) -> Weights | None:
    """The comparison of a model's weights, made now where there is none yet; None where that takes more than `seconds`.

    Raises ModelError where anything but a new head would be random, or anything of the body left out.
    """
    if model.missing is not None or task not in model.tasks:
        return Weights(notices=(), new_pooler=(), head_for=())
    report = _report(model, task, seconds)
    return None if report is None else comparison_of_report(report, model.spec, _config(model.path))


def comparison_of_report(report: dict[str, Any], spec: str, config: dict[str, Any]) -> Weights:
    """The comparison by a report of `torch_weights`. Raises ModelError where the weights are not the model's."""
    if "error" in report:
        error = _readable_error(str(report["error"]).partition("\n")[0], config)
        raise ModelError(f"{spec!r} cannot be loaded: {error}", spec, "a model that transformers loads")
    head, missing = set(report["head"]), set(report["missing"])
    mismatched = {name: (given, expected) for name, given, expected in report["mismatched"]}
    pooler = {name for name in missing if head and _POOLER.search(name)}
    unfitting = {name: sizes for name, sizes in mismatched.items() if name not in head}
    fault = _fault(report, config, missing - head - pooler, unfitting)
    if fault is not None:
        raise ModelError(f"the weights of {spec!r} are not this model's: {fault}", spec, "the model's own tensors")
    own_head = head and not head & (missing | set(mismatched))
    return Weights(
        notices=tuple(_notices(sorted((missing & head) | pooler | set(mismatched)), report["unexpected"])),
        new_pooler=tuple(sorted(pooler)),
        head_for=config_class_names(config) if own_head else (),
    )


def _notices(new: Sequence[str], unused: Sequence[str]) -> Iterator[Notice]:
    """Notices of tensors of the head that begin at random, and of tensors of the file that are left out."""
    if new:
        message = f"{_count(new)} of the head for the classes {_be(new)} new, at random: {first_names(new)}"
        yield Notice(field="model", message=f"{message}; the file has none that fit", count=len(new))
    if unused:
        message = f"{_count(unused)} of the file {_be(unused)} left out, for this task has no use for them: "
        yield Notice(field="model", message=message + first_names(unused), count=len(unused))


def _readable_error(error: str, config: dict[str, Any]) -> str:
    """An error as a person can read it: for a KeyError, which says only a name, the member of config.json with it."""
    match = re.fullmatch(r"KeyError: (['\"])(.*)\1", error)
    if match is None:
        return error
    member = next((name for name, value in config.items() if value == match[2]), None)
    if member is not None:
        return f"config.json has {member} {match[2]!r}, which transformers does not know; name one that it knows"
    return f"transformers looks for {match[2]!r} and does not find it; take the weights' own config.json"


def same_classes(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether these are the same classes, in whatever order."""
    return len(theirs) == len(set(theirs)) and sorted(theirs) == sorted(ours)


def _count(names: Collection[str]) -> str:
    return counted(len(names), "tensor")


def _be(names: Collection[str]) -> str:
    return "are" if len(names) > 1 else "is"


# -- faults of a report -----------------------------------------------------------------------------------------------
def _fault(report: dict[str, Any], config: dict[str, Any], missing: set[str], unfitting: dict[str, Any]) -> str | None:
    """Why these tensors cannot be this model's; None where they can. `missing` and `unfitting` are tensors of the body
    that the file lacks, or has in other sizes."""
    surplus = report["in_body"]
    unknown = [*report["unexpected"], *surplus] if missing or surplus else []
    return (
        _renamed_fault(unknown)
        or _depth_fault(surplus, config)
        or _size_fault(unfitting)
        or _tie_fault(report["untied"])
        or _missing_fault(report, config, missing)
        or _surplus_fault(report, surplus)
    )


def _renamed_fault(names: list[str]) -> str | None:
    """Names that show that the model was saved inside a wrapper."""
    for pattern, reason in _RENAMED:
        renamed = [name for name in names if pattern.search(name)]
        if renamed:
            return f"{len(renamed):,} names such as {renamed[0]} show that {reason}"
    return None


def _depth_fault(surplus: list[str], config: dict[str, Any]) -> str | None:
    """Layers in the file beyond the number of layers in config.json."""
    layers = config.get("num_hidden_layers", config.get("n_layer", config.get("n_layers")))
    indices = {int(match[1]) for name in surplus if (match := _LAYER.search(name))}
    if not isinstance(layers, int) or not indices or min(indices) < layers:
        return None
    return (
        f"the file has {max(indices) + 1} layers and config.json says {layers}, so {_count(surplus)} would be "
        "left out; set the number of layers in config.json to the file's"
    )


def _size_fault(unfitting: dict[str, Any]) -> str | None:
    """Tensors of other sizes than config.json gives."""
    if not unfitting:
        return None
    name, (given, expected) = next(iter(unfitting.items()))
    sizes = f"{name} is {' x '.join(map(str, given))} in the file and {' x '.join(map(str, expected))} by config.json"
    return f"{_count(unfitting)} of other sizes, {sizes}; take the config.json that was saved with the weights"


def _tie_fault(untied: list[str] | None) -> str | None:
    """Two tensors that config.json ties and the file holds with different numbers."""
    if untied is None:
        return None
    first, second = untied
    return (
        f"config.json ties {first} to {second} (tie_word_embeddings), and the file holds two different ones; set "
        "tie_word_embeddings to false"
    )


def _missing_fault(report: dict[str, Any], config: dict[str, Any], missing: set[str]) -> str | None:
    """Tensors of the body, or an output layer, that the file lacks."""
    if not missing:
        return None
    fault = f"{_count(missing)} {_be(missing)} not in the file and would be random: {first_names(missing)}"
    if not report["head"] and all(not _LAYER.search(name) for name in missing) and not report["in_body"]:
        saved = config.get("architectures")
        of = f" (saved from {saved[0]})" if isinstance(saved, list) and saved else ""
        return (
            f"{fault}. The file{of} has no output layer to write with; use it for sequence_classification, or take the "
            "model it was made from. Where its embeddings write too, set tie_word_embeddings to true in config.json"
        )
    return f"{fault}; save the whole model again with save_pretrained"


def _surplus_fault(report: dict[str, Any], surplus: list[str]) -> str | None:
    """Tensors of whole numbers, or tensors of the body that the model lacks."""
    if report["whole_numbers"]:
        names = report["whole_numbers"]
        return f"{_count(names)} {_be(names)} whole numbers, not weights: {first_names(names)}; take the original"
    if surplus:
        fault = f"{_count(surplus)} of the body would be left out, for the model has no place for them"
        return f"{fault}: {first_names(surplus)}; take the config.json that was saved with these weights"
    return None


# -- cached reports ---------------------------------------------------------------------------------------------------
_REPORTS: dict[str, dict[str, Any]] = {}
_PENDING: dict[str, Future[dict[str, Any]]] = {}
_LOCK = threading.Lock()


def _report(model: BaseModel, task: str, seconds: float | None) -> dict[str, Any] | None:
    """The report of a model's folder, cached or made now; None where that takes more than `seconds`."""
    files = _files(model.path)
    key = _key(model.path, files, task)
    report = _REPORTS.get(key) or _shipped().get(key) or _CACHE.read(key, _read)
    if report is not None:
        _REPORTS[key] = report
        return report
    with _LOCK:
        pending = _PENDING.get(key)
        if pending is None:
            pending = _PENDING[key] = Future()
            question = {"folder": model.path, "files": [file.name for file in files], "task": task}
            threading.Thread(target=_ask, args=(key, question, pending), name="weights", daemon=True).start()
    try:
        return pending.result(timeout=seconds)
    except FutureTimeoutError:
        return None


def _ask(key: str, question: dict[str, Any], pending: Future[dict[str, Any]]) -> None:
    """Ask the child process for a report, and store it; runs in a thread."""
    answer = _COMPARER.ask(question)
    if answer is None:
        answer = {"error": "the process that compares its weights ended; try again"}
    else:
        _REPORTS[key] = answer
        if "error" not in answer:
            report = json.dumps(answer).encode()
            _CACHE.write(key, len(report), lambda out: out.write(report))
    with _LOCK:
        _PENDING.pop(key, None)
    pending.set_result(answer)


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that `transformers` loads from a folder: one, or those of its index; empty without."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _files(folder: str) -> list[Path]:
    return weight_files(Path(folder))


@lru_cache(maxsize=256)
def _header_hash(file: Path, size: int, changed: int) -> str:
    """The hash of a safetensors file's header, cached by the file's size and time."""
    with open(file, "rb") as content:
        length = int.from_bytes(content.read(8), "little")
        return sha256(content.read(min(length, size))).hexdigest()


def _key(folder: str, files: list[Path], task: str) -> str:
    """The cache key of a report, equal for folders with the same config.json and headers, and the same library.

    Where tied weights are in the files twice, their numbers matter too; sizes and times of the files stand for them.
    """
    config = _config(folder)
    parts = [REPORT_VERSION, transformers_version(), task, {key: config[key] for key in sorted(config)}]
    for file in files:
        state = file.stat()
        parts.append(_header_hash(file, state.st_size, state.st_mtime_ns))
        if config.get("tie_word_embeddings", True) and not file.is_relative_to(assets_folder()):
            parts += [state.st_size, state.st_mtime_ns]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _config(folder: str) -> dict[str, Any]:
    """The config.json of a folder; empty where it cannot be read."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    """The reports of the bundled models by key."""
    file = assets_folder() / SHIPPED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def shipped_reports(models: list[BaseModel]) -> dict[str, dict[str, Any]]:
    """The reports of these models for all their tasks, to be written to `SHIPPED`."""
    reports = {}
    for model in models:
        for task in model.tasks:
            report = _report(model, task, None)
            assert report is not None
            reports[_key(model.path, _files(model.path), task)] = report
    return reports


def _read(file: Path) -> dict[str, Any]:
    """A cached report. Raises ValueError for a damaged one."""
    report = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(report, dict):
        raise ValueError(f"{file} holds no report")
    return report


_COMPARER = Child("tuning.models.torch_weights", _ANSWER_SECONDS)
