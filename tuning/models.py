"""Base models: what a config.json alone tells about one, and the catalogue of bundled ones.

Comes in: a name, or a path to a local folder.  Goes out: a `BaseModel` with its `ModelShape`.  No torch: a shape is
read from JSON, the weights' size from the file system.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuning.assets import assets_folder
from tuning.errors import ModelError

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "olmo2", "smollm3", "granite")
"""Decoder families with a gated feed-forward (three matrices)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a transformer; `parameters` counts all weights of its language-model form."""

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied: bool

    @property
    def gated(self) -> bool:
        return self.model_type in GATED

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (in, out) features."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        if self.gated:
            mlp = {"gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}
        else:
            mlp = {"up": (hidden, inner), "down": (inner, hidden)}
        return {
            "q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key), "o_proj": (query, hidden),
        } | mlp  # fmt: skip

    @property
    def block_parameters(self) -> int:
        """Weights of one block; families with plain feed-forwards also have biases and paired norms."""
        matrices = sum(a * b for a, b in self.linears.values())
        if self.gated:
            biases = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim if self.model_type == "qwen2" else 0
            return matrices + 2 * self.hidden_size + biases
        return matrices + sum(b for _, b in self.linears.values()) + 4 * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights with the language-model head (exact for Llama-type models, close for others)."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        ends = self.hidden_size if self.gated else 2 * self.hidden_size + self.max_positions * self.hidden_size
        return embeddings + self.num_layers * self.block_parameters + ends

    @property
    def body_parameters(self) -> int:
        """All weights without the language-model head."""
        return self.parameters - (0 if self.tied else self.vocab_size * self.hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model that is on this machine."""

    spec: str
    source: str
    path: str
    title: str
    shape: ModelShape
    weight_bytes: int
    chat_template: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> BaseModel:
        return BaseModel(**(plain | {"shape": ModelShape(**plain["shape"])}))


def _first(config: dict[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    if default is None:
        message = f"config.json has none of {', '.join(names)}; this kind of model cannot be read"
        raise ModelError(message, config.get("model_type"))
    return default


def shape_from_config(config: dict[str, Any]) -> ModelShape:
    """The shape a config.json describes; raises ModelError naming a missing field."""
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    heads = _first(config, "num_attention_heads", "n_head")
    return ModelShape(
        model_type=str(config.get("model_type", "")),
        hidden_size=hidden,
        num_layers=_first(config, "num_hidden_layers", "n_layer"),
        num_heads=heads,
        num_kv_heads=_first(config, "num_key_value_heads", default=heads),
        head_dim=_first(config, "head_dim", default=hidden // heads),
        intermediate_size=_first(config, "intermediate_size", "n_inner", default=4 * hidden),
        vocab_size=_first(config, "vocab_size"),
        max_positions=_first(config, "max_position_embeddings", "n_positions", default=2048),
        tied=bool(config.get("tie_word_embeddings", config.get("model_type") in ("gpt2", "bert"))),
    )


def _open_folder(folder: Path, spec: str, source: str) -> BaseModel:
    if not folder.is_dir():
        raise ModelError(f"there is no folder {spec!r}; give the path of a model folder", spec, "an existing folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{spec!r} has no config.json; save it with save_pretrained", spec, "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        found = "only pickle weights, which can run code when opened" if pickled else "no *.safetensors"
        message = f"{spec!r} has {found}; save it again with save_pretrained (safetensors)"
        raise ModelError(message, spec, "safetensors weights")
    if not (folder / "tokenizer.json").is_file():
        message = f"{spec!r} has no tokenizer.json; save a fast tokenizer beside the weights"
        raise ModelError(message, spec, "tokenizer.json")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        raise ModelError(f"config.json of {spec!r} is not readable JSON", spec, "valid JSON") from None
    if not isinstance(config, dict):
        raise ModelError(f"config.json of {spec!r} is not a JSON object", spec, "a JSON object")
    return BaseModel(
        spec=spec, source=source, path=str(folder), title=folder.name, shape=shape_from_config(config),
        weight_bytes=sum(file.stat().st_size for file in weights), chat_template=_has_chat_template(folder),
    )  # fmt: skip


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    file = folder / "tokenizer_config.json"
    try:
        return bool(file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("chat_template"))
    except (ValueError, AttributeError):
        return False


def resolve_model(spec: str) -> BaseModel:
    """A bundled name, or a path (`/`, `./`, `~`, `path:`). Raises ModelError with the fix."""
    kind, colon, rest = spec.partition(":")
    name = rest if colon and kind in ("bundled", "path", "hub") else spec
    bundled = {model.name: model for model in _bundled_folders()}
    if kind == "path" or (kind not in ("bundled", "hub") and name.startswith(("/", "./", "../", "~"))):
        return _open_folder(Path(name).expanduser(), spec, "path")
    if kind != "hub" and name in bundled:
        return _open_folder(bundled[name], spec, "bundled")
    known = ", ".join(bundled) or "none"
    message = f"no base model {spec!r} here; bundled: {known}; or give a folder's path such as ./my-model"
    raise ModelError(message, spec, "a bundled name or a folder's path")


def _bundled_folders() -> list[Path]:
    return sorted(file.parent for file in assets_folder().glob("models/*/config.json"))


def model_catalogue() -> list[BaseModel]:
    """The bundled base models."""
    return [_open_folder(folder, folder.name, "bundled") for folder in _bundled_folders()]
