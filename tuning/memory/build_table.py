"""Make the table of one workload. A child process of its own: `python -m tuning.memory.build_table`.

Comes in: a subject as JSON on standard input, one a line.  Goes out: for each, one line on standard output: the table,
or {"error": why it cannot be traced}.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tuning.child import serve
from tuning.memory.fit import (
    FEW,
    LONGER,
    SOME,
    Fit,
    block_of,
    check_events,
    check_layers,
    design,
    exact,
    fitted,
    larger,
)
from tuning.memory.layers import Layout, Unfit, every_layer, layers_of, layout_of, per_layer, resolved, window_of
from tuning.memory.subject import DEPTHS, Workload
from tuning.memory.table import BEYOND, Block, Table
from tuning.memory.trace import Trace
from tuning.micro_batches import Shape
from tuning.shapes import shape_from_config

RANKS = (8, 4)
DEEP = 12
"""Layers up to which a model whose layers differ in ways its config does not tell is traced whole."""
NEVER = 1 << 24
"""A window beyond every row that is traced."""
JOINED = 448
"""Tokens of the larger shape where a micro-batch's rows are joined into one."""


def build_table(workload: Workload) -> Table:
    """Trace and fit. Raises Unfit, or what the libraries raise on a model they cannot build."""
    gc.disable()  # frees must come where reference counts put them
    config = resolved(workload.config)
    layout, layers = layout_of(config), layers_of(config)
    try:
        if layout is None:
            raise Unfit("its layers are of too many kinds")
        return _build(workload, config, layout)
    except Unfit:
        if layers > DEEP or layout == every_layer(layers):
            raise
        return _build(workload, config, every_layer(layers))


def _build(workload: Workload, config: dict[str, Any], layout: Layout) -> Table:
    bench = _Bench(workload, config, layout)
    if bench.grows_outside():
        return _build(workload, config, every_layer(layout.layers))
    # eager attention has a mask for every layer whatever the length
    window = window_of(config) if workload.settings["attention"] != "eager" else None
    blocks = bench.blocks(None if window is None else NEVER)
    if window is not None:
        blocks |= {BEYOND + name: block for name, block in bench.blocks(bench.shortest, blocks).items()}
    counts = bench.counts()
    return Table(
        layers=layout.layers,
        window=window,
        blocks=blocks,
        trainable=_affine([one[0] for one in counts], RANKS),
        total=_affine([one[1] for one in counts], RANKS),
    )


class _Bench:
    """The models that are traced for one workload: one a rank, and one with more layers for a check."""

    def __init__(self, workload: Workload, config: dict[str, Any], layout: Layout) -> None:
        self._workload, self._config, self._layout = workload, config, layout
        ranks: list[int | None] = [None] if workload.rank is None else list(RANKS)
        positions = shape_from_config(config).max_positions - workload.settings["method"].get("virtual_tokens", 0)
        self._positions = max(1, positions)
        """Tokens that a row can have: beyond them there is no embedding of a place to trace."""
        self._sizes: dict[Any, Any] = {}
        self._tracers = {rank: self._tracer(layout, rank) for rank in ranks}
        self._deeper = None if layout.whole else self._tracer(layout.one_more()[1], ranks[0])

    def _tracer(self, layout: Layout, rank: int | None) -> Any:
        from tuning.memory.torch_trace import Tracer

        given = self._workload.config
        lists = per_layer(self._config | given, self._layout.layers)
        picked = {name: [values[place] for place in layout.picks] for name, values in lists.items()}
        depths = {name: layout.depth for name in DEPTHS if name in self._config}
        return Tracer(
            self._workload, given | picked | depths, layout.depth, rank, self._sizes, positions=self._positions
        )

    @property
    def shortest(self) -> int:
        """Tokens of the shortest row that is traced: a window within every one."""
        return min(shape.length for shape, _ in design([None, None], many=False, padded=False, longest=self._positions))

    def grows_outside(self) -> bool:
        """Whether more lies outside the layers the more there are, as with a prefix: then none stands for others."""
        return self._deeper is not None and self._deeper.outside() != next(iter(self._tracers.values())).outside()

    def counts(self) -> list[tuple[int, int]]:
        """Trainable and total parameters, by rank."""
        return [tracer.counts(self._layout) for tracer in self._tracers.values()]

    def blocks(self, window: int | None, within: dict[str, Block] | None = None) -> dict[str, Block]:
        """Those of an update and of an evaluation, with another width of the attention's window.

        `within` are the blocks of rows that no window cuts: those of padded or joined rows, which need a mask at any
        length, are taken over, and so is the proof that the traced layers stand for all. What is evaluated is never
        packed, so it needs padding.
        """
        workload, packed = self._workload, self._workload.packed
        if window is not None:
            for tracer in [*self._tracers.values(), *filter(None, [self._deeper])]:
                tracer.set_window(window)
        ways = {
            "one": ("trace", False, False),
            "many": ("trace", True, workload.padded),
            "evaluation_one": ("evaluation", False, False),
            "evaluation_many": ("evaluation", True, workload.pads_evaluation),
        }
        found: dict[str, Block] = {}
        for name, (what, many, padded) in ways.items():
            joined = packed and what == "trace"  # all rows are one
            if joined and name == "many":
                found[name] = found["one"]
            elif within is not None and (padded or joined):
                found[name] = within[name]
            else:
                deeper = within is None and (many or joined)
                length = min(JOINED, 2 * self._positions) if joined else min(LONGER, self._positions)
                block = self._block(what, many, padded, length, deeper=deeper)
                found[name] = block if what == "trace" else replace(block, line=[])
        return found

    def _block(self, what: str, many: bool, padded: bool, length: int, *, deeper: bool) -> Block:
        """Fitted, and with `deeper` held against a model with more layers."""
        ranks = list(self._tracers)
        other, rank = larger(ranks, length, many=many, padded=padded)
        fit = self._fitted(what, design(ranks, many=many, padded=padded, longest=length), other, rank)
        if deeper and self._deeper is not None:
            check_layers(fit, self._layout.one_more()[0], other, ranks[0], getattr(self._deeper, what)(other))
        return block_of(fit, self._layout)

    def _fitted(self, what: str, shapes: Sequence[tuple[Shape, int | None]], other: Shape, rank: int | None) -> Fit:
        """From few traces if those meet another shape to the byte, else from as many as there are coefficients."""
        proof = getattr(self._tracers[rank], what)(other)
        traces: list[Trace] = []
        for count in (FEW, SOME, len(shapes)):
            traces += [getattr(self._tracers[one], what)(shape) for shape, one in shapes[len(traces) : count]]
            fit = fitted(traces, shapes[:count], self._layout.depth)
            if fit is not None and exact(fit, other, rank, proof):
                return fit
        if fit is None:
            raise Unfit(
                f"rows of {self._positions} tokens, the most this model has places for, differ too little in size"
            )
        check_events(fit, other, rank, proof)
        return fit


def _affine(counts: list[int], ranks: tuple[int, ...]) -> tuple[float, float]:
    if len(counts) == 1:
        return float(counts[0]), 0.0
    slope = (counts[0] - counts[1]) / (ranks[0] - ranks[1])
    return counts[0] - slope * ranks[0], slope


def main() -> None:
    from tuning.training.offline import keep_to_this_machine

    keep_to_this_machine()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    gc.freeze()
    answer_each(lambda line: build_table(Workload(**line)))


def words_of(error: Exception) -> str:
    """What a person reads of it: the message, and whose kind it is where it is not ours."""
    said, kind = str(error).strip(), type(error).__name__
    if isinstance(error, Unfit):
        return said
    return f"{kind}: {said}" if said else f"a {kind} without a message while the model was built or run"


def answer_each(table_of: Callable[[dict[str, Any]], Table]) -> None:
    """For each JSON line of standard input a table, or why there is none."""

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        try:
            return table_of(question).to_dict()
        except Exception as error:  # whatever a library says about a model it cannot build
            return {"error": words_of(error)}
        finally:
            gc.collect()

    serve(answer)


if __name__ == "__main__":
    main()
