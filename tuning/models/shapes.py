"""The sizes of a transformer as its config.json tells them, without opening a weight.

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
"""Layers of the deepest model that is read: all are built once, without weights, to be compared with the file's."""
_USUAL_PADDING = 1
"""The padding token of these kinds where config.json does not say it."""


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
    """Rows of the positions' matrix that no token can use; None in plans that were stored before it was counted."""

    @property
    def positions_words(self) -> str:
        """How many tokens have a place, in words, with what takes the others."""
        lost = self.lost_positions or 0
        why = f" ({self.max_positions + lost} less {lost}, which come before the first token's)" if lost else ""
        return f"{self.max_positions} positions{why}"

    @property
    def family(self) -> Family:
        return family_of(self.model_type)

    @property
    def known(self) -> bool:
        """Whether the layers' names and the count are those of `transformers`, not a guess."""
        return self.family.exact

    @property
    def gated(self) -> bool:
        return self.family.gated

    @property
    def encoder(self) -> bool:
        """Reads both ways, or has not been proven not to: then it writes only where its config says `is_decoder`."""
        return not self.family.writes

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """All linear modules of one block: the end of their name -> (in, out) features."""
        query, key, inner = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.intermediate_size
        size = {"h": self.hidden_size, "q": query, "k": key, "i": inner, "f": query + 2 * key, "g": 2 * inner}
        return {name: (size[into], size[out]) for name, into, out in self.family.layers}

    @property
    def attention_linears(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one block's attention: the end of their name -> (in, out) features."""
        return dict(list(self.linears.items())[: len(self.family.attention.split())])

    @property
    def block_parameters(self) -> int:
        """Weights of one block: matrices, biases and norms."""
        family, linears = self.family, self.linears
        biased = [part.split(":")[0] for part in f"{family.attention} {family.mlp}".split() if part.endswith("+")]
        widths = {
            "d": self.head_dim,
            "q": self.num_heads * self.head_dim,
            "k": self.num_kv_heads * self.head_dim,
        }
        norms = family.block_norms * self.hidden_size + sum(widths[one] for one in family.head_norms.split())
        return sum(a * b for a, b in linears.values()) + sum(linears[name][1] for name in biased) + norms

    @property
    def parameters(self) -> int:
        """All weights with the language-model head; exact for the families of the table, else close."""
        head = 0 if self.tied else self.vocab_size * self.hidden_size
        return self.body_parameters + head + (self.vocab_size if self.family.head_bias else 0)

    @property
    def body_parameters(self) -> int:
        """All weights without the language-model head."""
        family, hidden = self.family, self.hidden_size
        lost = family.position_offset if self.lost_positions is None else self.lost_positions
        positions = (self.max_positions + lost) * hidden if family.positions else 0
        ends = self.vocab_size * hidden + positions + family.end_norms * hidden + self.extra_parameters
        pooler = hidden * (hidden + 1) if family.pooler else 0
        return ends + self.num_layers * self.block_parameters + pooler

    def classifier_parameters(self, labels: int) -> int:
        """Weights of the new head that `transformers` puts on for so many classes."""
        hidden, kind = self.hidden_size, self.family.classifier
        dense = hidden * hidden + hidden if kind == "dense" else 0
        return dense + hidden * labels + (0 if kind == "score" else labels)


def _first(config: dict[str, Any], *names: str, default: int | None = None) -> int:
    """The first of these members that is there; raises ShapeError for one that is no size."""
    for name in names:
        found = config.get(name)
        if found is None:
            continue
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise ShapeError(f"config.json has {name} {found!r}; it must be a whole number above 0", found)
        return found
    if default is None:
        message = f"config.json has none of {', '.join(names)}; this kind of model cannot be read"
        raise ShapeError(message, config.get("model_type"))
    return default


def _check_heads(config: dict[str, Any], hidden: int, heads: int, keys: int) -> None:
    """Raise ShapeError for heads that no model can be built with."""
    if heads % keys:
        message = f"config.json has {heads} attention heads and {keys} key heads; the first must be a multiple"
        raise ShapeError(message, keys)
    if hidden % heads and config.get("head_dim") is None:
        message = f"config.json has a width of {hidden} and {heads} attention heads, but no head_dim; use a multiple"
        raise ShapeError(message, hidden)


def counts_from_padding(kind: str) -> bool:
    """Whether positions of this kind begin behind the padding token's id."""
    return family_of(kind).positions_from_padding


def _lost_positions(config: dict[str, Any], kind: str) -> int:
    """Positions that come before the first token's."""
    if not family_of(kind).positions_from_padding:
        return family_of(kind).lost_positions
    padding = config.get("pad_token_id", _USUAL_PADDING)
    return padding + 1 if isinstance(padding, int) and padding >= 0 else 0


def shape_from_config(config: dict[str, Any]) -> ModelShape:
    """The shape a config.json describes; raises ShapeError naming a missing field."""
    kind = str(config.get("model_type", ""))
    for block in (config, *(one for one in config.values() if isinstance(one, dict))):
        experts = next((name for name in EXPERTS if isinstance(block.get(name), int) and block[name] > 1), None)
        if experts:
            message = (
                f"config.json of this {kind} model has {experts} {block[experts]}; mixtures of experts are not "
                "supported: use a dense model"
            )
            raise ShapeError(message, kind)
    hidden = _first(config, *HIDDEN_SIZES)
    heads = _first(config, *HEAD_COUNTS)
    layers = _first(config, *DEPTHS)
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
    extra = _first(config, "type_vocab_size", default=1) * hidden if family.segments else 0
    if config.get("attention_bias") is True and not family.encoder and "+" not in family.attention:
        extra += layers * (heads * width + 2 * keys * width + hidden)
    if config.get("use_qkv_bias") is True and "+" not in family.attention:
        extra += layers * (heads + 2 * keys) * width
    if config.get("mlp_bias") is True and "+" not in family.mlp:
        extra += layers * (2 * inner + hidden)
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
        extra_parameters=extra,
    )
