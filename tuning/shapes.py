"""The sizes of a transformer as its config.json tells them, without opening a weight.

Comes in: the object in a config.json.  Goes out: a `ModelShape`: layers by their names in `transformers`, parameters,
positions.  Families are one line each in a table; a family not in it is read by the usual names and counted closely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tuning.architectures import DECODERS


class ShapeError(ValueError):
    """The config lacks a size, or describes a kind of model that is not one stack of dense blocks."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How `transformers` writes one kind of model.

    A layer is `name:in>out`, with `+` where it has a bias; h hidden, q all query heads, k all key heads, i inner,
    f query, key and value in one, g gate and up in one.
    """

    attention: str
    mlp: str
    gated: bool = True
    block_norms: int = 2
    """Hidden-wide vectors in one block's norms: one for each RMS norm, two for each LayerNorm."""
    head_norms: str = ""
    """Norms on queries and keys: `d d` for one head's width each, `q k` for all heads'."""
    end_norms: int = 1
    tied: bool = False
    positions: bool = False
    """Learned positions, a matrix of max_positions x hidden."""
    position_offset: int = 0
    """Rows of the positions' matrix that no token can use."""
    head_bias: bool = False
    transposed: bool = False
    """Linear layers keep their matrix as in x out (the library's Conv1D)."""
    encoder: bool = False
    segments: bool = False
    """Segment embeddings, as many as type_vocab_size says."""
    pooler: bool = False
    """A hidden-wide layer behind the body that a classifier reads."""
    classifier: str = "score"
    """`score` a matrix; `bias` a matrix with a bias; `dense` a hidden-wide layer before it."""


_SPLIT = "q_proj:h>q k_proj:h>k v_proj:h>k o_proj:q>h"
_BIASED = "q_proj:h>q+ k_proj:h>k+ v_proj:h>k+ "
_GATED = "gate_proj:h>i up_proj:h>i down_proj:i>h"
_LLAMA = Family(attention=_SPLIT, mlp=_GATED)
_QWEN2 = Family(attention=_BIASED + "o_proj:q>h", mlp=_GATED)
_ROBERTA = Family(
    attention="query:h>q+ key:h>k+ value:h>k+ attention.output.dense:q>h+",
    mlp="intermediate.dense:h>i+ output.dense:i>h+",
    gated=False,
    block_norms=4,
    end_norms=2,
    tied=True,
    positions=True,
    position_offset=2,
    encoder=True,
    segments=True,
    classifier="dense",
)
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "granite": _LLAMA,
    "smollm3": replace(_LLAMA, tied=True),
    "gemma": replace(_LLAMA, tied=True),
    "gemma2": replace(_LLAMA, tied=True, block_norms=4),
    "gemma3_text": replace(_LLAMA, tied=True, block_norms=4, head_norms="d d"),
    "qwen2": _QWEN2,
    "seed_oss": _QWEN2,
    "qwen3": replace(_LLAMA, head_norms="d d"),
    "exaone4": replace(_LLAMA, head_norms="d d"),
    "olmo": replace(_LLAMA, block_norms=0, end_norms=0),
    "olmo2": replace(_LLAMA, head_norms="q k"),
    "olmo3": replace(_LLAMA, head_norms="q k"),
    "ernie4_5": replace(_LLAMA, tied=True),
    "cohere": replace(_LLAMA, tied=True, block_norms=1),
    "helium": _LLAMA,
    "stablelm": replace(_LLAMA, block_norms=4, end_norms=2),
    "arcee": replace(_LLAMA, mlp="up_proj:h>i down_proj:i>h", gated=False),
    "nemotron": replace(_LLAMA, mlp="up_proj:h>i down_proj:i>h", gated=False, block_norms=4, end_norms=2),
    "glm": replace(_QWEN2, mlp="gate_up_proj:h>g down_proj:i>h"),
    "starcoder2": Family(
        attention=_BIASED + "o_proj:q>h+",
        mlp="c_fc:h>i+ mlp.c_proj:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
        tied=True,
    ),
    "phi3": Family(attention="qkv_proj:h>f o_proj:q>h", mlp="gate_up_proj:h>g down_proj:i>h"),
    "phi": Family(
        attention=_BIASED + "dense:q>h+",
        mlp="fc1:h>i+ fc2:i>h+",
        gated=False,
        end_norms=2,
        head_bias=True,
    ),
    "gpt2": Family(
        attention="c_attn:h>f+ attn.c_proj:q>h+",
        mlp="c_fc:h>i+ mlp.c_proj:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
        tied=True,
        positions=True,
        transposed=True,
    ),
    "gpt_neox": Family(
        attention="query_key_value:h>f+ attention.dense:q>h+",
        mlp="dense_h_to_4h:h>i+ dense_4h_to_h:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
    ),
    "bert": replace(_ROBERTA, position_offset=0, pooler=True, classifier="bias"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "modernbert": Family(  # the first block lacks one norm, which is taken off the two at the ends
        attention="attn.Wqkv:h>f attn.Wo:q>h",
        mlp="mlp.Wi:h>g mlp.Wo:i>h",
        tied=True,
        encoder=True,
        pooler=True,
        classifier="bias",
    ),
    "distilbert": replace(
        _ROBERTA,
        position_offset=0,
        segments=False,
        mlp="lin1:h>i+ lin2:i>h+",
        attention="q_lin:h>q+ k_lin:h>k+ v_lin:h>k+ out_lin:q>h+",
    ),
}
_PLAIN = Family(
    attention=_BIASED + "o_proj:q>h+",
    mlp="up:h>i+ down:i>h+",
    gated=False,
    block_norms=4,
    end_norms=2,
    tied=True,
    positions=True,
)
"""What is assumed of a family that is not in the table."""
MOST_LAYERS = 2_000
"""Layers of the deepest model that is read: all are built once, without weights, to be compared with the file's."""
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
"""Members of a config.json that say how many positions there are."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
COUNTED_FROM_PADDING = (
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
"""Kinds whose first token has the position behind the padding token's id: the rows up to there are no text's."""
_USUAL_PADDING = 1
"""The padding token of these kinds where config.json does not say it."""
_LOST = {"mpnet": 2}
"""Kinds that always begin at the same later position."""


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
        return FAMILIES.get(self.model_type, _PLAIN)

    @property
    def known(self) -> bool:
        """Whether the layers' names and the count are those of `transformers`, not a guess."""
        return self.model_type in FAMILIES

    @property
    def gated(self) -> bool:
        return self.family.gated

    @property
    def encoder(self) -> bool:
        """Reads both ways, or has not been proven not to: then it writes only where its config says `is_decoder`."""
        return self.family.encoder or self.model_type not in DECODERS

    def _layers(self, written: str) -> dict[str, tuple[int, int]]:
        query, key, inner = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.intermediate_size
        size = {"h": self.hidden_size, "q": query, "k": key, "i": inner, "f": query + 2 * key, "g": 2 * inner}
        parts = [part.removesuffix("+").split(":") for part in written.split()]
        return {name: (size[ends[0]], size[ends[2]]) for name, ends in parts}

    @property
    def attention_linears(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one block's attention: the end of their name -> (in, out) features."""
        return self._layers(self.family.attention)

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """All linear modules of one block: the end of their name -> (in, out) features."""
        return self._layers(f"{self.family.attention} {self.family.mlp}")

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
    return kind in COUNTED_FROM_PADDING


def _lost_positions(config: dict[str, Any], kind: str) -> int:
    """Positions that come before the first token's."""
    if kind not in COUNTED_FROM_PADDING:
        return _LOST.get(kind, 0)
    padding = config.get("pad_token_id", _USUAL_PADDING)
    return padding + 1 if isinstance(padding, int) and padding >= 0 else 0


def shape_from_config(config: dict[str, Any]) -> ModelShape:
    """The shape a config.json describes; raises ShapeError naming a missing field."""
    kind = str(config.get("model_type", ""))
    for block in (config, *(one for one in config.values() if isinstance(one, dict))):
        experts = next((name for name in _EXPERTS if isinstance(block.get(name), int) and block[name] > 1), None)
        if experts:
            message = (
                f"config.json of this {kind} model has {experts} {block[experts]}; mixtures of experts are not "
                "supported: use a dense model"
            )
            raise ShapeError(message, kind)
    hidden = _first(config, "hidden_size", "n_embd", "d_model", "dim", "emb_dim")
    heads = _first(config, "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
    layers = _first(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if layers > MOST_LAYERS:
        message = (
            f"config.json says the model has {layers:,} layers, and the most that are read here are {MOST_LAYERS:,}"
        )
        raise ShapeError(message, layers)
    family = FAMILIES.get(kind, _PLAIN)
    keys = _first(config, "num_key_value_heads", default=heads)
    width = _first(config, "head_dim", default=max(1, hidden // heads))
    _check_heads(config, hidden, heads, keys)
    inner = _first(config, "intermediate_size", "n_inner", "hidden_dim", "ffn_dim", default=4 * hidden)
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
