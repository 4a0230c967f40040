"""The network as assets/page/network.js draws it: what the chosen method freezes, trains and adds, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TypedDict

from tuning.methods import method_named
from tuning.methods.network import FROZEN, Part
from tuning.plan.plan import Plan


class NetworkPart(TypedDict):
    """A part of a layer: frozen, trained or added, with its number of parameters."""

    name: str
    state: str
    count: int


class NetworkLine(TypedDict):
    """A layer, or `times` neighbours that are alike, with the parts of each."""

    name: str
    times: int
    parts: list[NetworkPart]


class NetworkView(TypedDict):
    """What the method trains: its title, its description and where it comes from, the counts in words, the layers."""

    title: str
    card: str
    source: str
    summary: str
    lines: list[NetworkLine]


def network_value(plan: Plan) -> NetworkView:
    """Title, card and source of the method; lines of layers with their parts; the counts in words."""
    method, settings = method_named(plan.settings.method.name), plan.settings.method
    parts = method.parameter_groups(plan.model.shape, settings, plan.class_count)
    trained = sum(part.parameters for part in parts if part.state != FROZEN)
    total = sum(part.parameters for part in parts)
    share = f"{100 * trained / total:.3g}\u00a0%" if total else ""
    return {
        "title": method.title,
        "card": method.card,
        "source": method.source,
        "summary": f"{trained:,} of {total:,} parameters are trained ({share})" if trained else "Nothing is trained.",
        "lines": list(_lines(parts)),
    }


def _lines(parts: list[Part]) -> Iterator[NetworkLine]:
    """One line a layer, in the order of the forward pass; neighbours with the same parts become one line."""
    names = list(dict.fromkeys(part.layer for part in parts))
    layers = [(name, _parts([part for part in parts if part.layer == name])) for name in names]
    for _, group in groupby(layers, key=lambda layer: (layer[0].split()[0], repr(layer[1]))):
        alike = list(group)
        first, last = alike[0][0], alike[-1][0]
        name = first if len(alike) == 1 else f"blocks {first.split()[-1]}\u2013{last.split()[-1]}, each"
        yield {"name": name, "times": len(alike), "parts": alike[0][1]}


def _parts(parts: list[Part]) -> list[NetworkPart]:
    return [{"name": part.name, "state": part.state, "count": part.parameters} for part in parts]
