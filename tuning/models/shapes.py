"""The sizes of a transformer by its config.json, without opening a weight.

A `ModelShape` has the layers by their names in `transformers`, the number of parameters, and the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuning.models.families import (
    DEPTHS,
    EXPERTS,
    HEAD_COUNTS,
    HIDDEN_SIZES,
    INNER_SIZES,
    POSITIONS,
    Family,
    family_of,
)


class ShapeError(ValueError):
    """The config lacks a size, or describes a kind of model that is not one stack of dense blocks."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value


MOST_LAYERS = 2_000
"""Layers of the deepest model that is read: all are built once, without weights, to compare them with the file's."""
_USUAL_PADDING = 1
"""The padding token's id in kinds that count positions from it, where config.json does not name it."""


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
    extra_parameters: int = 0
    """Weights that only some configs of a family have: segment embeddings, optional biases."""
    lost_positions: int | None = None
    """Rows of the position embeddings that no token can use; None in plans that were stored before it was counted."""

    @property
    def positions_words(self) -> str:
        """How many positions tokens can use, in words, with the reason why others cannot be used."""
        lost = self.lost_positions or 0
        reason = f" ({self.max_positions + lost} less {lost}, which come before the first token's)" if lost else ""
        return f"{self.max_positions} positions{reason}"

    @property
    def family(self) -> Family:
        """The record of the model's family."""
        return family_of(self.model_type)

    @property
    def is_exact(self) -> bool:
        """Whether names and numbers of layers are exact, and not assumed."""
        return self.family.exact

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate."""
        return self.family.gated

    @property
    def encoder(self) -> bool:
        """Whether tokens see those after them, or are not proven not to: then the model writes only where its config
        has `is_decoder`."""
        return not self.family.writes

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The (in, out) features of all linear modules of one block, by the end of their names."""
        query, key, inner = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.intermediate_size
        size = {"h": self.hidden_size, "q": query, "k": key, "i": inner, "f": query + 2 * key, "g": 2 * inner}
        return {name: (size[inputs], size[outputs]) for name, inputs, outputs in self.family.layers}

    @property
    def attention_linears(self) -> dict[str, tuple[int, int]]:
        """The (in, out) features of the linear modules of one block's attention, by the end of their names."""
        return dict(list(self.linears.items())[: len(self.family.attention.split())])

    @property
    def block_parameters(self) -> int:
        """The number of weights of one block: matrices, biases and norms."""
        family, linears = self.family, self.linears
        biased = [part.split(":")[0] for part in f"{family.attention} {family.mlp}".split() if part.endswith("+")]
        widths = {
            "d": self.head_dim,
            "q": self.num_heads * self.head_dim,
            "k": self.num_kv_heads * self.head_dim,
        }
        norms = family.block_norms * self.hidden_size + sum(widths[letter] for letter in family.head_norms.split())
        matrices = sum(inputs * outputs for inputs, outputs in linears.values())
        return matrices + sum(linears[name][1] for name in biased) + norms

    @property
    def parameters(self) -> int:
        """The number of weights with the language-model head: exact for families with a record of their layers, else
        close."""
        head = 0 if self.tied else self.vocab_size * self.hidden_size
        return self.body_parameters + head + (self.vocab_size if self.family.head_bias else 0)

    @property
    def body_parameters(self) -> int:
        """The number of weights without the language-model head."""
        family, hidden = self.family, self.hidden_size
        lost = family.position_offset if self.lost_positions is None else self.lost_positions
        positions = (self.max_positions + lost) * hidden if family.positions else 0
        ends = self.vocab_size * hidden + positions + family.end_norms * hidden + self.extra_parameters
        pooler = hidden * (hidden + 1) if family.pooler else 0
        return ends + self.num_layers * self.block_parameters + pooler

    def classifier_parameters(self, labels: int) -> int:
        """The number of weights of the new head that `transformers` adds for `labels` classes."""
        hidden, kind = self.hidden_size, self.family.classifier
        dense = hidden * hidden + hidden if kind == "dense" else 0
        return dense + hidden * labels + (0 if kind == "score" else labels)


def _first(config: dict[str, Any], *names: str, default: int | None = None) -> int:
    """The first of these members that the config has. Raises ShapeError for a value that is no size, and where there is
    neither a member nor a default."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ShapeError(f"config.json has {name} {value!r}; it must be a whole number above 0", value)
        return value
    if default is None:
        message = f"config.json has none of {', '.join(names)}; this kind of model cannot be read"
        raise ShapeError(message, config.get("model_type"))
    return default


def _check_heads(config: dict[str, Any], hidden: int, heads: int, keys: int) -> None:
    """Raises ShapeError for numbers of heads with which no model can be built."""
    if heads % keys:
        message = f"config.json has {heads} attention heads and {keys} key heads; the first must be a multiple"
        raise ShapeError(message, keys)
    if hidden % heads and config.get("head_dim") is None:
        message = f"config.json has a width of {hidden} and {heads} attention heads, but no head_dim; use a multiple"
        raise ShapeError(message, hidden)


def counts_from_padding(kind: str) -> bool:
    """Whether positions of this kind begin after the padding token's id."""
    return family_of(kind).positions_from_padding


def _lost_positions(config: dict[str, Any], kind: str) -> int:
    """How many positions come before the first token's."""
    if not family_of(kind).positions_from_padding:
        return family_of(kind).lost_positions
    padding = config.get("pad_token_id", _USUAL_PADDING)
    return padding + 1 if isinstance(padding, int) and padding >= 0 else 0


def shape_from_config(config: dict[str, Any]) -> ModelShape:
    """The shape that a config.json describes. Raises ShapeError naming a member that is missing or cannot be used."""
    kind = str(config.get("model_type", ""))
    _check_dense(config, kind)
    hidden, heads, layers = _first(config, *HIDDEN_SIZES), _first(config, *HEAD_COUNTS), _first(config, *DEPTHS)
    if layers > MOST_LAYERS:
        message = (
            f"config.json says the model has {layers:,} layers, and the most that are read here are {MOST_LAYERS:,}"
        )
        raise ShapeError(message, layers)
    family = family_of(kind)
    keys = _first(config, "num_key_value_heads", default=heads)
    width = _first(config, "head_dim", default=max(1, hidden // heads))
    _check_heads(config, hidden, heads, keys)
    inner = _first(config, *INNER_SIZES, default=4 * hidden)
    segments = _first(config, "type_vocab_size", default=1) * hidden if family.segments else 0
    biases = layers * _optional_biases(config, family, hidden, heads * width, keys * width, inner)
    positions = _first(config, *POSITIONS, default=2048)
    lost = _lost_positions(config, kind)
    if lost >= positions:
        message = f"config.json has {positions} positions, and its padding token leaves none of them for a text"
        raise ShapeError(message, positions)
    return ModelShape(
        model_type=kind,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=keys,
        head_dim=width,
        intermediate_size=inner,
        vocab_size=_first(config, "vocab_size"),
        max_positions=positions - lost,
        lost_positions=lost,
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        extra_parameters=segments + biases,
    )


def _check_dense(config: dict[str, Any], kind: str) -> None:
    """Raises ShapeError for a mixture of experts."""
    for block in (config, *(member for member in config.values() if isinstance(member, dict))):
        experts = next((name for name in EXPERTS if isinstance(block.get(name), int) and block[name] > 1), None)
        if experts:
            message = (
                f"config.json of this {kind} model has {experts} {block[experts]}; mixtures of experts are not "
                "supported: use a dense model"
            )
            raise ShapeError(message, kind)


def _optional_biases(config: dict[str, Any], family: Family, hidden: int, query: int, key: int, inner: int) -> int:
    """Weights of one block in biases that config.json asks for and the family usually lacks; sizes are widths."""
    biases = 0
    if "+" not in family.attention:
        if config.get("attention_bias") is True and not family.encoder:
            biases += query + 2 * key + hidden
        if config.get("use_qkv_bias") is True:
            biases += query + 2 * key
    if config.get("mlp_bias") is True and "+" not in family.mlp:
        biases += 2 * inner + hidden
    return biases
