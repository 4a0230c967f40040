"""Checks before Start that the weights in a folder are the model's: what a library would report at load, and not raise.

The comparison is the library's own (`torch_weights`). It is made in a child process, once for each folder and task, and
its report is cached: importing the libraries takes seconds, and a key press must not.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuning.core.child_process import Child
from tuning.core.errors import ModelError, Notice
from tuning.core.files import FileCache
from tuning.core.paths import assets_folder
from tuning.models.base_model import BaseModel, class_names
from tuning.models.tensors import some

COMPARED = 1
"""Raise it when a report says more or otherwise: reports kept before are then not used any more."""
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
"""Names that say how a file came to have them, and what to do."""
_LAYER = re.compile(r"\.(\d+)\.")
_POOLER = re.compile(r"(^|\.)pooler\.|^head\.")
"""The layer that some kinds have between body and head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is known of a folder's tensors for a task."""

    notices: tuple[Notice, ...]
    new_pooler: tuple[str, ...]
    """Tensors of a layer between body and head that the file lacks: they begin at random values, as the head does."""
    head_for: tuple[str, ...]
    """The classes of the file's own head, as config.json names them, in the order of their numbers; empty without."""


def compared(model: BaseModel, task: str, seconds: float | None = None) -> Weights | None:
    """The comparison, made now where it has not been yet; None where that takes more than so many seconds.

    Raises ModelError where something other than a new head would be random, or something of the body left out.
    """
    if model.missing is not None or task not in model.tasks:
        return Weights(notices=(), new_pooler=(), head_for=())
    report = _report(model, task, seconds)
    return None if report is None else judged(report, model.spec, _config(model.path))


def judged(report: dict[str, Any], spec: str, config: dict[str, Any]) -> Weights:
    """What a report means. Raises ModelError."""
    if "error" in report:
        first = _said(str(report["error"]).partition("\n")[0], config)
        raise ModelError(f"{spec!r} cannot be loaded: {first}", spec, "a model that transformers loads")
    head, missing = set(report["head"]), set(report["missing"])
    mismatched = {name: (given, wanted) for name, given, wanted in report["mismatched"]}
    pooler = {name for name in missing if head and _POOLER.search(name)}
    lacking, unfitting = missing - head - pooler, {name: two for name, two in mismatched.items() if name not in head}
    why = _wrong(report, config, lacking, unfitting)
    if why is not None:
        raise ModelError(f"the weights of {spec!r} are not this model's: {why}", spec, "the model's own tensors")
    notices = []
    fresh = sorted((missing & head) | pooler | set(mismatched))
    if fresh:
        message = f"{_tensors(len(fresh))} of the head for the classes {_be(len(fresh))} new, at random: {some(fresh)}"
        notices.append(Notice(field="model", message=f"{message}; the file has none that fit", count=len(fresh)))
    unused = report["unexpected"]
    if unused:
        message = (
            f"{_tensors(len(unused))} of the file {_be(len(unused))} left out, for this task has no use for them: "
        )
        notices.append(Notice(field="model", message=message + some(unused), count=len(unused)))
    own = class_names(config) if head and not head & (missing | set(mismatched)) else ()
    return Weights(notices=tuple(notices), new_pooler=tuple(sorted(pooler)), head_for=own)


def _said(error: str, config: dict[str, Any]) -> str:
    """What a person reads of an error: where it is a bare name that a library has not, whose name that is."""
    found = re.fullmatch(r"KeyError: (['\"])(.*)\1", error)
    if found is None:
        return error
    member = next((name for name, value in config.items() if value == found[2]), None)
    if member is not None:
        return f"config.json has {member} {found[2]!r}, which transformers does not know; name one that it knows"
    return f"transformers looks for {found[2]!r} and does not find it; take the weights' own config.json"


def same_classes(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether these are the same classes, in whatever order."""
    return len(theirs) == len(set(theirs)) and sorted(theirs) == sorted(ours)


def _tensors(count: int) -> str:
    return f"{count:,} tensor{'s' if count > 1 else ''}"


def _be(count: int) -> str:
    return "are" if count > 1 else "is"


def _wrong(report: dict[str, Any], config: dict[str, Any], lacking: set[str], unfitting: dict[str, Any]) -> str | None:
    """Why these tensors cannot be this model's; None where they can."""
    extra = report["in_body"]
    if lacking or extra:
        for pattern, why in _RENAMED:
            named = [name for name in [*report["unexpected"], *extra] if pattern.search(name)]
            if named:
                return f"{len(named):,} names such as {named[0]} show that {why}"
    layers = config.get("num_hidden_layers", config.get("n_layer", config.get("n_layers")))
    beyond = {int(found[1]) for name in extra if (found := _LAYER.search(name))}
    if isinstance(layers, int) and beyond and min(beyond) >= layers:
        return (
            f"the file has {max(beyond) + 1} layers and config.json says {layers}, so {_tensors(len(extra))} would be "
            "left out; set the number of layers in config.json to the file's"
        )
    if unfitting:
        name, (given, wanted) = next(iter(unfitting.items()))
        sizes = f"{name} is {' x '.join(map(str, given))} in the file and {' x '.join(map(str, wanted))} by config.json"
        return (
            f"{_tensors(len(unfitting))} of other sizes, {sizes}; take the config.json that was saved with the weights"
        )
    if report["untied"] is not None:
        first, second = report["untied"]
        return (
            f"config.json ties {first} to {second} (tie_word_embeddings), and the file holds two different ones; set "
            "tie_word_embeddings to false"
        )
    return _lacking(report, config, lacking) or _too_much(report, extra)


def _lacking(report: dict[str, Any], config: dict[str, Any], lacking: set[str]) -> str | None:
    if not lacking:
        return None
    count, names = _tensors(len(lacking)), some(lacking)
    what = f"{count} {'are' if len(lacking) > 1 else 'is'} not in the file and would be random: {names}"
    if not report["head"] and all(not _LAYER.search(name) for name in lacking) and not report["in_body"]:
        saved = config.get("architectures")
        of = f" (saved from {saved[0]})" if isinstance(saved, list) and saved else ""
        return (
            f"{what}. The file{of} has no output layer to write with; use it for sequence_classification, or take the "
            "model it was made from. Where its embeddings write too, set tie_word_embeddings to true in config.json"
        )
    return f"{what}; save the whole model again with save_pretrained"


def _too_much(report: dict[str, Any], extra: list[str]) -> str | None:
    if report["whole_numbers"]:
        names = report["whole_numbers"]
        return f"{_tensors(len(names))} {_be(len(names))} whole numbers, not weights: {some(names)}; take the original"
    if extra:
        count = f"{_tensors(len(extra))} of the body would be left out, for the model has no place for them"
        return f"{count}: {some(extra)}; take the config.json that was saved with these weights"
    return None


# -- a report, kept -------------------------------------------------------------------------------------------------
_KEPT: dict[str, dict[str, Any]] = {}
_ASKED: dict[str, Future[dict[str, Any]]] = {}
_LOCK = threading.Lock()


def _report(model: BaseModel, task: str, seconds: float | None) -> dict[str, Any] | None:
    files = _files(model.path)
    key = _key(model.path, files, task)
    found = _KEPT.get(key) or _shipped().get(key) or _CACHE.read(key, _read)
    if found is not None:
        _KEPT[key] = found
        return found
    with _LOCK:
        waiting = _ASKED.get(key)
        if waiting is None:
            waiting = _ASKED[key] = Future()
            question = {"folder": model.path, "files": [file.name for file in files], "task": task}
            threading.Thread(target=_ask, args=(key, question, waiting), name="weights", daemon=True).start()
    try:
        return waiting.result(timeout=seconds)
    except NotYet:
        return None


def _ask(key: str, question: dict[str, Any], waiting: Future[dict[str, Any]]) -> None:
    answer = _COMPARER.ask(question)
    if answer is None:
        answer = {"error": "the process that compares its weights ended; try again"}
    else:
        _KEPT[key] = answer
        if "error" not in answer:
            report = json.dumps(answer).encode()
            _CACHE.write(key, len(report), lambda out: out.write(report))
    with _LOCK:
        _ASKED.pop(key, None)
    waiting.set_result(answer)


def weight_files(folder: Path) -> list[Path]:
    """The files that `transformers` loads: one, or those of its index."""
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
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        return sha256(opened.read(min(length, size))).hexdigest()


def _key(folder: str, files: list[Path], task: str) -> str:
    """Equal for folders that are compared alike: by config.json, the files' headers and the library.

    Where tied weights stand in the files twice, their numbers count too, which the files' sizes and times stand for.
    """
    config = _config(folder)
    told = [COMPARED, version("transformers"), task, {key: config[key] for key in sorted(config)}]
    for file in files:
        state = file.stat()
        told.append(_header_hash(file, state.st_size, state.st_mtime_ns))
        if config.get("tie_word_embeddings", True) and not file.is_relative_to(assets_folder()):
            told += [state.st_size, state.st_mtime_ns]
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _config(folder: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    """The reports of the bundled models by key."""
    file = assets_folder() / SHIPPED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def shipped_reports(models: list[BaseModel]) -> dict[str, dict[str, Any]]:
    """The reports of these models for all their tasks, to be written to `SHIPPED`."""
    found = {}
    for model in models:
        for task in model.tasks:
            report = _report(model, task, None)
            assert report is not None
            found[_key(model.path, _files(model.path), task)] = report
    return found


def _read(file: Path) -> dict[str, Any]:
    report = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(report, dict):
        raise ValueError(f"{file} holds no report")
    return report


_COMPARER = Child("tuning.models.torch_weights", _ANSWER_SECONDS)
