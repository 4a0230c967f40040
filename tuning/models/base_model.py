"""Base models on this machine: bundled, in a local folder, or downloaded from the hub.

A `BaseModel` has a `ModelShape`; a ModelError names what is missing and the fix. No torch and no network: a shape is
read from JSON, the size of the weights from the file system, and a hub id is searched in the standard cache, where
other programs store their downloads too.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuning.core.errors import ModelError, Notice
from tuning.core.paths import assets_folder
from tuning.core.visitor import path_refusal, special_file
from tuning.models.architectures import is_text_model, not_for_text, tasks_of, transformers_version
from tuning.models.families import DROPOUTS
from tuning.models.file_digests import base_files
from tuning.models.shapes import ModelShape, ShapeError, shape_from_config
from tuning.models.tensors import HeaderError, Tensor, first_names, packed_words, read_tensors

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CHAT_WORDS = re.compile(r"(^|[-_.])(instruct|chat|it|sft|dpo|rlhf|assistant|zephyr)([-_.]|$)", re.IGNORECASE)
_BASE_WORDS = re.compile(r"(^|[-_.])(base|pt|pretrained|foundation)([-_.]|$)", re.IGNORECASE)


_USE = "use one stack of attention blocks over text, such as llama, qwen3, gpt2 or bert"
_KNOWN_KIND = "a kind of model that can be trained here"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model on this machine."""

    spec: str
    source: str
    """`bundled`, `path`, `hub`, or `run` for the result of an earlier run."""
    path: str
    title: str
    shape: ModelShape
    weight_bytes: int
    chat_template: bool
    tasks: tuple[str, ...] = ("causal_lm", "sequence_classification")
    """What `transformers` can train it for."""
    revision: str | None = None
    """The commit of a hub model."""
    missing: str | None = None
    """What keeps it from being trained, as a sentence, though its memory can be estimated; None where nothing does."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read, such as of a tokenizer without a padding token."""
    notices: tuple[Notice, ...] = ()
    """Notices before Start, of what in the folder is left out, replaced or read otherwise than written."""
    files: dict[str, str] = field(default_factory=dict, hash=False)
    """Digests of weights, config and tokenizer, by which a later check finds changes; empty in old plans."""
    adapter: str | None = None
    """The folder of an earlier run's adapter that training continues, where it cannot be merged into the base."""
    adapter_files: dict[str, str] = field(default_factory=dict, hash=False)
    """Digests of the files of that adapter, by name."""
    learned_head: bool = False
    """Whether it is a run's result that is not merged yet, with a head for classes that its base model's files lack."""
    parent: BaseModel | None = None
    """For a run's result, the base model of that run."""

    @property
    def public_name(self) -> str:
        """The name that a saved file may give: its hub id, or its plain name; never a path of this machine."""
        return self.spec.removeprefix("hub:") if self.source == "hub" else self.title

    def check_complete(self) -> None:
        """Raises ModelError where the folder has enough to estimate but not to train."""
        if self.missing is not None:
            raise ModelError(self.missing, self.spec, "config, weights and tokenizer")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> BaseModel:
        lists: dict[str, Any] = {name: tuple(plain[name]) for name in ("tasks", "notes") if name in plain}
        notices = {"notices": tuple(map(Notice.from_dict, plain.get("notices", ())))}
        parent = None if plain.get("parent") is None else BaseModel.from_dict(plain["parent"])
        return BaseModel(**(plain | lists | notices | {"shape": ModelShape(**plain["shape"]), "parent": parent}))


def read_config(config: Any, spec: str) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape and tasks of a config.json. Raises ModelError where `transformers` cannot load it without foreign
    code."""
    if not isinstance(config, dict):
        raise ModelError(f"config.json of {spec!r} is not a JSON object", spec, "a JSON object")
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        message = (
            f"config.json of {spec!r} has no model_type, so its kind is unknown; save it again with save_pretrained"
        )
        raise ModelError(message, spec, "model_type in config.json")
    if "quantization_config" in config:
        quantization = config["quantization_config"]
        has_method = isinstance(quantization, dict)
        way = quantization.get("quant_method", "a packed format") if has_method else "a packed format"
        message = f"the weights of {spec!r} are already quantized ({way}); take the original model it was made from"
        raise ModelError(message, spec, "weights that are not quantized")
    other_sort = not_for_text(config)
    if other_sort is not None:
        message = f"{spec!r} is {other_sort} (model_type {kind}) and cannot be trained here; {_USE}"
        raise ModelError(message, spec, _KNOWN_KIND)
    if not is_text_model(kind):
        own = "auto_map" in config
        why = "brings its own code (auto_map), which is never run here" if own else "is not a text model it knows"
        message = (
            f"model_type {kind!r} of {spec!r} {why}: transformers {transformers_version()} has no class for it. {_USE}"
        )
        raise ModelError(message, spec, _KNOWN_KIND)
    try:
        shape = shape_from_config(config)
    except ShapeError as error:
        raise ModelError(f"{spec!r}: {error}", spec, "a dense text model") from None
    tasks = tasks_of(kind, config.get("is_decoder") is True)
    if not tasks:
        message = (
            f"{spec!r} is a model of kind {kind}: it has not been proven that its tokens see only what stands before "
            f"them, so it cannot write, nor that padding leaves its classes alone; {_USE}"
        )
        raise ModelError(message, spec, _KNOWN_KIND)
    return shape, tasks


def descriptive_name(title: str, source: str) -> str:
    """The name from which `tuning_of` decides: a bundled model is a base model, though its title does not say so."""
    return f"{title}-base" if source == "bundled" else title


def tuning_of(name: str, chat_template: bool) -> tuple[str, str]:
    """What a model of this name is tuned for (`chat`, `base` or `unclear`), and a sentence about it.

    A chat template alone does not decide it: some base models have one.
    """
    if _CHAT_WORDS.search(name) and chat_template:
        return (
            "chat",
            "Tuned for conversations: train it on messages, and they are written as it has learned to read them.",
        )
    if not chat_template:
        why = "no chat template: it goes on with a text. Train it on texts, or on prompts with completions."
        return "base", f"Base model, {why}"
    if _BASE_WORDS.search(name):
        return (
            "base",
            "Not a chat model: it continues text. Chat data teaches it the form of its chat template.",
        )
    return (
        "unclear",
        "It has a chat template, and its name does not say whether it was tuned for conversations; ask it.",
    )


# -- a folder ---------------------------------------------------------------------------------------------------------
def open_folder(folder: Path, spec: str, source: str, title: str, revision: str | None = None) -> BaseModel:
    """The base model in a folder. Raises ModelError naming what is missing or cannot be read."""
    if source in ("path", "hub"):
        _check_openable(folder, spec)
    if not folder.is_dir():
        raise ModelError(f"there is no folder {spec!r}; give the path of a model folder", spec, "an existing folder")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            message = f"{spec!r} is an adapter, not a model; merge it into its base model, and save that"
            raise ModelError(message, spec, "a whole model")
        raise ModelError(f"{spec!r} has no config.json; save it with save_pretrained", spec, "config.json")
    if (folder / "adapter_config.json").is_file():
        message = (
            f"{spec!r} holds a whole model and an adapter beside it (adapter_config.json), and which of them is meant "
            "is not clear; move the adapter's files out, or merge it into the model"
        )
        raise ModelError(message, spec, "a model without an adapter beside it")
    config = _json(folder / "config.json", spec)
    shape, tasks = read_config(config, spec)
    weights, missing = _weights(folder, spec)
    notices: list[Notice] = []
    if weights:
        _check_tokenizer(folder, spec)
        notices += _vocabulary(folder, shape.vocab_size, spec)
    template = _has_chat_template(folder)
    return BaseModel(
        spec=spec,
        source=source,
        path=str(folder),
        title=title,
        shape=shape,
        chat_template=template,
        tasks=tasks,
        weight_bytes=sum(file.stat().st_size for file in weights),
        revision=revision,
        missing=missing,
        notices=tuple(notices),
        notes=_notes(folder, shape, "causal_lm" in tasks, descriptive_name(title, source), template),
        files=base_files(folder, weights),
    )


def _check_openable(folder: Path, spec: str) -> None:
    """Raises ModelError where the current visitor may not open this folder, or what its links lead to; or where an
    entry of it is neither file nor folder. Nothing is opened for that, nor looked for."""
    limit = "a bundled model, or a folder named for all"
    refusal = path_refusal(folder, "models")
    if refusal is not None:
        raise ModelError(f"{spec!r:.300} {refusal}", spec, limit)
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        refusal = path_refusal(folder / name, "models")
        if refusal is not None:
            raise ModelError(f"{name} of {spec!r:.300} {refusal}", spec, limit)
    special = special_file(folder)
    if special is not None:
        message = f"{special} of {spec!r:.300} is a pipe or a device, and is not opened; take it out of the folder"
        raise ModelError(message, spec, "a folder of files")


def _json(file: Path, spec: str) -> Any:
    """The content of a JSON file. Raises ModelError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{file.name} of {spec!r} is not readable JSON", spec, "valid JSON") from None


def _weights(folder: Path, spec: str) -> tuple[list[Path], str | None]:
    """The safetensors files of a folder, or the sentence that says it has none. Raises ModelError for damaged ones."""
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        files = _files_of_index(folder, spec)
    else:
        _check_pickles(folder, spec)
        return (
            [],
            f"{spec!r} has no {WEIGHTS}: its memory can be estimated; to train, copy the weights there",
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_header(file, spec)
    _check_plain(tensors, spec)
    return files, None


def _files_of_index(folder: Path, spec: str) -> list[Path]:
    """The files of weights that a folder's index names. Raises ModelError where one is missing."""
    index = _json(folder / INDEX, spec)
    names = set(index["weight_map"].values()) if isinstance(index, dict) and "weight_map" in index else set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ModelError(f"{INDEX} of {spec!r} names no files; save the model again", spec, "a weight_map")
    files = [folder / name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        message = f"{spec!r} lacks {len(missing)} of {len(files)} weight files, first {missing[0]}; copy them too"
        raise ModelError(message, spec, ", ".join(missing[:3]))
    return files


def _check_pickles(folder: Path, spec: str) -> None:
    """Raises ModelError where a folder without safetensors weights has pickled ones."""
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        message = (
            f"{spec!r} has only pickle weights ({pickles[0]}), which can run code when opened, and are not opened "
            "here. Where you trust them, convert once: AutoModel….from_pretrained(folder).save_pretrained(folder)"
        )
        raise ModelError(message, spec, "safetensors weights")


def _read_header(file: Path, spec: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises ModelError for a file that is cut off, as a full disk or a broken copy
    leaves it, before loading would fail in the middle."""
    try:
        return read_tensors(file)
    except HeaderError as error:
        if error.expected_bytes is None:
            message = f"{file.name} of {spec!r} is not a safetensors file; copy or download it again"
            raise ModelError(message, spec, "a safetensors file") from None
        size = file.stat().st_size
        message = (
            f"{file.name} of {spec!r} is cut off: {size:,} of {error.expected_bytes:,} bytes; copy or download it again"
        )
        raise ModelError(message, spec, f"{error.expected_bytes:,} bytes") from None


def _check_plain(tensors: dict[str, Tensor], spec: str) -> None:
    """Raises ModelError for packed weights, which would silently be loaded as if they were plain numbers."""
    packed = packed_words(tensors)
    if packed is not None:
        message = f"the weights of {spec!r} are {packed}; take the original model it was made from"
        raise ModelError(message, spec, "weights in 16, 32 or 64 bits")


def config_class_names(config: dict[str, Any]) -> tuple[str, ...]:
    """The classes of a config.json in the order of their numbers; where it names none, those of `transformers`."""
    names = config.get("id2label")
    if not isinstance(names, dict):
        return ("LABEL_0", "LABEL_1")
    by_id = {str(id): str(name) for id, name in names.items()}
    return tuple(by_id.get(str(i), "") for i in range(len(by_id)))


@lru_cache(maxsize=64)
def _tokens_beyond(folder: Path, size: int, changed: int, vocabulary: int) -> tuple[int, tuple[str, ...]]:
    """How many tokens the tokenizer has, and those whose ids are beyond the `vocabulary` rows of the embeddings.

    Cached by the size and time of tokenizer.json.
    """
    from tokenizers import Tokenizer

    try:
        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    except Exception:  # the package raises a bare Exception for every fault; opening the tokenizer reports it
        return 0, ()
    tokens |= {str(token): id for token, id in read_json(folder / "added_tokens.json").items() if isinstance(id, int)}
    for id, record in (read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}).items():
        if str(id).isdigit() and isinstance(record, dict):
            tokens[str(record.get("content"))] = int(id)
    beyond = sorted((id, token) for token, id in tokens.items() if id >= vocabulary)
    return max(tokens.values(), default=-1) + 1, tuple(token for _, token in beyond)


def _vocabulary(folder: Path, size: int, spec: str) -> list[Notice]:
    """Notices of tokens without an embedding: a padding token is replaced, which changes nothing.

    Raises ModelError for any other token. `size` is the number of embeddings.
    """
    file = (folder / "tokenizer.json").stat()
    count, beyond = _tokens_beyond(folder, file.st_size, file.st_mtime_ns, size)
    pad = _token_text(read_json(folder / "tokenizer_config.json").get("pad_token"))
    others = [token for token in beyond if token != pad]
    sizes = f"the tokenizer of {spec!r} has {count:,} tokens and the model embeddings for {size:,}"
    if others:
        message = (
            f"{sizes}: {first_names(map(repr, others))} would have none. Take the tokenizer that belongs to the model, "
            "or give the model more embeddings with resize_token_embeddings"
        )
        raise ModelError(message, spec, f"at most {size:,} tokens")
    notices = []
    if beyond:
        message = f"{sizes}: its padding token {pad!r} has none, so another token fills up short rows, masked out"
        notices.append(Notice(field="model", message=message, count=len(beyond)))
    return notices


def _token_text(token: Any) -> str | None:
    """The text of a token, which a config has as text or in a record."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _check_tokenizer(folder: Path, spec: str) -> None:
    """Raises ModelError where a folder has no tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return
    others = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json")
    other = next((name for name in others if (folder / name).is_file()), None)
    has, fix = "no tokenizer at all", "save its tokenizer beside the weights with save_pretrained"
    if other is not None:
        has = f"only {other}"
        fix = "make it once with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    raise ModelError(f"{spec!r} has no tokenizer.json, {has}; {fix}", spec, "tokenizer.json")


def _notes(folder: Path, shape: ModelShape, writes: bool, name: str, template: bool) -> tuple[str, ...]:
    """Sentences about a model that a person should read; `writes` says that it can be trained to write."""
    encoder = "Reads both ways: it sorts texts into classes, and cannot write."
    notes = [tuning_of(name, template)[1] if writes else encoder]
    config = read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file() and not config.get("pad_token"):
        notes.append("The tokenizer has no padding token; another token fills up short rows, masked out of the loss.")
    model = read_json(folder / "config.json")
    dropped = [name for name in DROPOUTS if isinstance(model.get(name), float) and model[name] > 0]
    if dropped:
        notes.append(f"It trains with its own dropout ({dropped[0]} {model[dropped[0]]:g}), so cuts differ a little.")
    if not shape.is_exact:
        notes.append(
            f"Layers of a model of kind {shape.model_type} are counted by the usual pattern, so counts are close, "
            "not exact."
        )
    return tuple(notes)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where the file is missing or holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _has_chat_template(folder: Path) -> bool:
    """Whether a folder has a chat template, in a file or in its tokenizer's config."""
    return (folder / "chat_template.jinja").is_file() or bool(
        read_json(folder / "tokenizer_config.json").get("chat_template")
    )


# -- the hub's cache --------------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """The folder in which programs on this machine store downloads from the hub (HF_HUB_CACHE, HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshot(model_id: str, revision: str | None) -> Path | None:
    """The folder of a hub model at a branch, tag or commit in the cache; None where it is not there."""
    folder = cache_folder() / f"models--{model_id.replace('/', '--')}"
    name = revision or "main"
    if COMMIT.fullmatch(name):
        commit = name
    else:
        ref = folder / "refs" / name
        if not ref.resolve().is_relative_to((folder / "refs").resolve()) or not ref.is_file():
            return None
        commit = ref.read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and (snapshot / "config.json").is_file() else None


def _open_cached(model_id: str, spec: str, revision: str | None) -> BaseModel:
    """A hub model that is in the cache with its weights. Raises ModelError."""
    folder = cached_snapshot(model_id, revision)
    if folder is not None:
        model = open_folder(folder, spec, "hub", model_id.rpartition("/")[2], folder.name)
        if model.missing is None:
            return model
    names = ", ".join(folder.name for folder in _bundled_folders()) or "none"
    at = f" at revision {revision!r}" if revision else ""
    message = (
        f"no base model {spec!r}{at} here: not bundled ({names}), not downloaded yet. Press Look up to see and fetch "
        "it (on the command line: run --download), or give a folder's path such as ./my-model"
    )
    raise ModelError(message, spec, "a bundled name, a folder's path, or a hub id that is downloaded")


def is_cached(model_id: str, revision: str | None) -> bool:
    """Whether all of a hub model is in the cache."""
    try:
        return _open_cached(model_id, model_id, revision).missing is None
    except ModelError:
        return False


# -- any source -------------------------------------------------------------------------------------------------------
def split_spec(spec: str) -> tuple[str, str]:
    """The source that a model's name means (`bundled`, `path`, `hub` or `run`), and the name without its prefix.

    Raises ModelError.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in ("bundled", "path", "hub", "run"):
        name = rest
    else:
        name = spec
        bundled = name in {folder.name for folder in _bundled_folders()}
        kind = "path" if name.startswith(("/", "./", "../", "~")) else "bundled" if bundled else "hub"
    if kind == "hub" and (not HUB_ID.fullmatch(name) or "--" in name or ".." in name):
        limit = "a bundled name, a folder's path such as ./my-model, or a hub id such as org/name"
        raise ModelError(f"{spec!r} is no model: give {limit}", spec, limit)
    return kind, name


def resolve_model(spec: str, revision: str | None = None) -> BaseModel:
    """The base model of a bundled name, a path (`/`, `./`, `~`, `path:`), or a hub id that is in the cache.

    Raises ModelError.
    """
    kind, name = split_spec(spec)
    if kind == "hub":
        return _open_cached(name, spec, revision)
    if revision is not None:
        message = "revision is for hub models; leave it empty"
        raise ModelError(message, revision, "null", "revision")
    if kind == "path":
        folder = Path(os.path.expanduser(name))  # unlike Path.expanduser it leaves an unknown ~name as it is
        try:
            return open_folder(folder, spec, "path", folder.name)
        except OSError as error:  # a folder that may not be looked into, a file that may not be read, a name too long
            message = f"{spec!r:.300} cannot be read: {error.strerror or error}; check who may read it"
            raise ModelError(message, spec, "a readable model folder") from None
    bundled = {folder.name: folder for folder in _bundled_folders()}
    if kind == "bundled" and name in bundled:
        return open_folder(bundled[name], spec, "bundled", name)
    names = ", ".join(bundled) or "none"
    raise ModelError(f"no base model {spec!r} here; bundled: {names}", spec, names)


def _bundled_folders() -> list[Path]:
    return sorted(file.parent for file in assets_folder().glob("models/*/config.json"))


def model_catalogue() -> list[BaseModel]:
    """The bundled base models."""
    return [open_folder(folder, folder.name, "bundled", folder.name) for folder in _bundled_folders()]
