"""The layers of a model that are traced, and how many of those left out each of them stands for.

A model whose layers are all alike is traced at its ends and once between; where they differ (attention over a window in
some, over everything in others) each kind between the ends is traced. Runs in the tracing process: it asks
`transformers` for what a config.json leaves to defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuning.models.families import DEPTHS

MOST_TRACED = 9


class UntraceableError(Exception):
    """No table can be made of this model, with the reason in words.

    Its config.json says too little of its layers, its traces are no polynomial of the sizes (their events do not line
    up), or a check has failed.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layers that are traced (`picks`, from 0) of a model's `layers`, and how many others each stands for."""

    layers: int
    picks: tuple[int, ...]
    stands_for: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.picks)

    @property
    def whole(self) -> bool:
        """Whether no layer is left out."""
        return not any(self.stands_for)

    def representatives(self) -> list[int]:
        """The traced layers that stand for others, by their index among those traced."""
        return [i for i, count in enumerate(self.stands_for) if count]

    def with_repeated_layers(self) -> tuple[Layout, Layout]:
        """Two layouts of a model in which each layer that stands for others occurs once more.

        The first leaves it out, to be predicted from traces of this layout; the second traces it.
        """
        representatives = self.representatives()
        counts = tuple(int(count > 0) for count in self.stands_for)
        after = representatives[-1] + 1
        picks = (*self.picks[:after], *(self.picks[i] for i in representatives), *self.picks[after:])
        predicted = Layout(layers=len(picks), picks=self.picks, stands_for=counts)
        return predicted, Layout(layers=len(picks), picks=picks, stands_for=(0,) * len(picks))


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the defaults of transformers. Raises what transformers raises for one that it cannot read."""
    import transformers

    given = {name: value for name, value in config.items() if name != "model_type"}
    return transformers.AutoConfig.for_model(config["model_type"], **given).to_dict()


def per_layer(config: dict[str, Any], layers: int) -> dict[str, list[Any]]:
    """The members of a config that have one plain entry for each layer."""
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, list)
        and len(value) == layers
        and not any(isinstance(entry, list | dict) for entry in value)
    }


def layers_of(config: dict[str, Any]) -> int:
    """The number of the model's blocks. Raises UntraceableError where the config does not say."""
    layers = next((config[name] for name in DEPTHS if name in config), None)
    if layers is None:
        raise UntraceableError(f"its config.json does not say how many layers it has: none of {', '.join(DEPTHS)}")
    return int(layers)


def every_layer(layers: int) -> Layout:
    """The layout that traces every layer."""
    return Layout(layers=layers, picks=tuple(range(layers)), stands_for=(0,) * layers)


def layout_of(config: dict[str, Any]) -> Layout | None:
    """The fewest layers that stand for all of a resolved config; None where too many differ.

    Layers of a kind share tensors (a mask, say), which the backward pass drops with the first of them: so one that
    stands for others has one of its kind before it. The kind that comes last in the model comes last here.
    """
    layers = layers_of(config)
    kinds = list(zip(*per_layer(config, layers).values(), strict=True)) or [()] * layers
    if layers <= 3:
        return every_layer(layers)
    layers_of_kind: dict[Any, list[int]] = {}
    for layer in range(1, layers - 1):
        layers_of_kind.setdefault(kinds[layer], []).append(layer)
    last = kinds[layers - 2]
    picks, counts = [0], [0]
    for kind in [*(kind for kind in layers_of_kind if kind != last), last]:
        alike = layers_of_kind[kind]
        chosen = [alike[-1]] if kind == kinds[0] or len(alike) == 1 else [alike[0], alike[-1]]
        picks += chosen
        counts += [0] * (len(chosen) - 1) + [len(alike) - len(chosen)]
    if len(picks) + 1 > MOST_TRACED:
        return None
    return Layout(layers=layers, picks=(*picks, layers - 1), stands_for=(*counts, 0))


def window_of(config: dict[str, Any]) -> int | None:
    """Tokens of the attention window of a resolved config; None without one, or where no row can be as long."""
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    if not isinstance(window, int) or (kinds is not None and "sliding_attention" not in kinds):
        return None
    most = config.get("max_position_embeddings")
    return window if not isinstance(most, int) or most >= window else None
