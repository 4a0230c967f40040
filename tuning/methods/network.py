"""A transformer as its parts: what each method freezes, trains and adds, and what the modules are called.

The picture on the page and the counts of weights are the same list of `Part`s, so they cannot differ. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from tuning.models.base_model import ModelShape

FROZEN, TRAINED, ADDED = "frozen", "trained", "added"
ATTENTION, FEED_FORWARD, NORMS = "attention", "feed-forward", "norms and biases"
EMBEDDINGS, FINAL_NORM, HEAD = "embeddings", "final norm", "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of the network: `state` is frozen, trained or added (which is trained too)."""

    layer: str
    name: str
    state: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear module of every block: the end of its name, its width in and out, which half it belongs to."""

    name: str
    into: int
    out: int
    half: str


def block_name(number: int) -> str:
    """Blocks are counted from 1, as the page shows them."""
    return f"block {number}"


@lru_cache(maxsize=64)
def body_parts(shape: ModelShape) -> tuple[Part, ...]:
    """Everything up to the last hidden state, frozen. Kept: an estimate by formula counts them several times."""
    attention = sum(linear.into * linear.out for linear in linears(shape) if linear.half == ATTENTION)
    forward = sum(linear.into * linear.out for linear in linears(shape) if linear.half == FEED_FORWARD)
    tokens, hidden = shape.vocab_size * shape.hidden_size, shape.hidden_size
    pooler = hidden * (hidden + 1) if shape.family.pooler else 0
    norm = 0 if shape.family.encoder else shape.family.end_norms * hidden
    block = shape.block_parameters
    rest = shape.body_parameters - tokens - shape.num_layers * block - pooler - norm
    parts = [Part(layer=EMBEDDINGS, name="tokens", state=FROZEN, parameters=tokens)]
    if rest:
        parts.append(Part(layer=EMBEDDINGS, name="positions and the like", state=FROZEN, parameters=rest))
    for number in range(1, shape.num_layers + 1):
        for name, count in ((ATTENTION, attention), (FEED_FORWARD, forward), (NORMS, block - attention - forward)):
            parts.append(Part(layer=block_name(number), name=name, state=FROZEN, parameters=count))
    if norm:
        parts.append(Part(layer=FINAL_NORM, name="norm", state=FROZEN, parameters=norm))
    if pooler:
        parts.append(Part(layer=HEAD, name="pooler", state=FROZEN, parameters=pooler))
    return tuple(parts)


def model_parts(
    shape: ModelShape, class_count: int, trained: Callable[[Part], bool] = lambda part: False
) -> list[Part]:
    """The whole model with the head its task needs; `trained` says which parts move. A new head always does."""
    parts = list(body_parts(shape))
    if not class_count:
        output = shape.parameters - shape.body_parameters
        name = "the token embeddings again (tied)" if shape.tied else "output layer"
        parts.append(Part(layer=HEAD, name=name, state=FROZEN, parameters=output))
    parts = [replace(part, state=TRAINED) if trained(part) else part for part in parts]
    if class_count:
        new = shape.classifier_parameters(class_count)
        parts.append(Part(layer=HEAD, name=f"new, for {class_count} classes", state=TRAINED, parameters=new))
    return parts


@lru_cache(maxsize=64)
def linears(shape: ModelShape) -> tuple[Linear, ...]:
    """The linear modules of one block, under the names this family gives them."""
    attention = shape.attention_linears
    return tuple(
        Linear(name=name, into=into, out=out, half=ATTENTION if name in attention else FEED_FORWARD)
        for name, (into, out) in shape.linears.items()
    )


def chosen_linears(shape: ModelShape, words: str) -> list[Linear]:
    """`all-linear`, `attention`, `feed-forward`, or module names joined by `+`; those that exist here.

    A name that matches nothing is left out: `unknown_targets` lists those.
    """
    groups = {"all-linear": (ATTENTION, FEED_FORWARD), ATTENTION: (ATTENTION,), FEED_FORWARD: (FEED_FORWARD,)}
    if words in groups:
        return [linear for linear in linears(shape) if linear.half in groups[words]]
    names = split_targets(words)
    return [linear for linear in linears(shape) if linear.name in names]


def split_targets(words: str) -> list[str]:
    """The module names among words joined by `+`."""
    return [word.strip() for word in words.split("+") if word.strip()]


def unknown_targets(shape: ModelShape, words: str) -> list[str]:
    """The names among `words` that no module of this model has."""
    if words in ("all-linear", ATTENTION, FEED_FORWARD):
        return []
    names = {linear.name for linear in linears(shape)}
    return [target for target in split_targets(words) or ["nothing"] if target not in names]


def target_pattern(shape: ModelShape, chosen: list[Linear]) -> str:
    """The regular expression that whole module names are matched with: these modules of every block, and no others.

    Where one module's name is the end of another's (BERT's output.dense of attention.output.dense), the other is
    kept out unless it is chosen too.
    """
    words, names = [], {linear.name for linear in chosen}
    for name in sorted(names):
        longer = [other for other in shape.linears if other.endswith("." + name) and other not in names]
        outs = "".join(f"(?<!{re.escape(other.removesuffix(name))})" for other in longer)
        words.append(outs + re.escape(name))
    return rf".*\.\d+\.(.*\.)?({'|'.join(words)})"
