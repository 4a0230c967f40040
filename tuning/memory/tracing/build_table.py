"""The program of a child process that makes memory tables: `python -m tuning.memory.tracing.build_table SECONDS`.

It reads workloads from standard input, one JSON object a line, and answers each with a line on standard output: the
table, or {"error": why it cannot be traced}.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tuning.core.child_process import serve
from tuning.memory.tracing.fit import (
    FEW,
    LONGER,
    SOME,
    Fit,
    block_of,
    check_events,
    check_layers,
    fit_traces,
    is_exact,
    shape_to_check,
    shapes_to_trace,
)
from tuning.memory.tracing.layers import (
    Layout,
    UntraceableError,
    every_layer,
    layers_of,
    layout_of,
    per_layer,
    window_of,
    with_defaults,
)
from tuning.memory.tracing.table import BEYOND, Block, Table
from tuning.memory.tracing.trace import Trace
from tuning.memory.workload import Workload
from tuning.models.families import DEPTHS
from tuning.models.shapes import shape_from_config
from tuning.plan.micro_batches import BatchShape

if TYPE_CHECKING:
    from tuning.memory.tracing.tracer import Tracer

RANKS = (8, 4)
MOST_WHOLE = 12
"""Layers up to which a model is traced whole whose layers differ in ways that its config does not show."""
NO_WINDOW = 1 << 24
"""A window beyond every row that is traced."""
PACKED_LENGTH = 448
"""Tokens of the larger shape where a micro-batch's rows are packed into one."""


def build_table(workload: Workload) -> Table:
    """The table of a workload, traced and fitted. Raises UntraceableError, or what the libraries raise for a model that
    they cannot build."""
    gc.disable()  # frees must come where reference counts put them
    config = with_defaults(workload.config)
    layout, layers = layout_of(config), layers_of(config)
    try:
        if layout is None:
            raise UntraceableError("its layers are of too many kinds")
        return _build(workload, config, layout)
    except UntraceableError:
        if layers > MOST_WHOLE or layout == every_layer(layers):
            raise
        return _build(workload, config, every_layer(layers))


def _build(workload: Workload, config: dict[str, Any], layout: Layout) -> Table:
    tracers = _Tracers(workload, config, layout)
    if tracers.grows_outside():
        return _build(workload, config, every_layer(layout.layers))
    # eager attention has a mask for every layer whatever the length
    window = window_of(config) if workload.settings["attention"] != "eager" else None
    blocks = tracers.blocks(None if window is None else NO_WINDOW)
    if window is not None:
        blocks |= {BEYOND + name: block for name, block in tracers.blocks(tracers.shortest, blocks).items()}
    counts = tracers.counts()
    return Table(
        layers=layout.layers,
        window=window,
        blocks=blocks,
        trainable=_affine([trainable for trainable, _ in counts], RANKS),
        total=_affine([total for _, total in counts], RANKS),
    )


class _Tracers:
    """The tracers of one workload: one for each rank, and one with more layers for a check."""

    def __init__(self, workload: Workload, config: dict[str, Any], layout: Layout) -> None:
        self._workload, self._config, self._layout = workload, config, layout
        ranks: list[int | None] = [None] if workload.rank is None else list(RANKS)
        positions = shape_from_config(config).max_positions - workload.settings["method"].get("virtual_tokens", 0)
        self._positions = max(1, positions)
        """Tokens that a row can have: beyond them the model has no position embedding."""
        self._sizes: dict[Any, Any] = {}
        self._tracers = {rank: self._tracer(layout, rank) for rank in ranks}
        self._deeper = None if layout.whole else self._tracer(layout.with_repeated_layers()[1], ranks[0])

    def _tracer(self, layout: Layout, rank: int | None) -> Tracer:
        from tuning.memory.tracing.tracer import Tracer

        given = self._workload.config
        lists = per_layer(self._config | given, self._layout.layers)
        picked = {name: [values[i] for i in layout.picks] for name, values in lists.items()}
        depths = {name: layout.depth for name in DEPTHS if name in self._config}
        return Tracer(
            self._workload, given | picked | depths, layout.depth, rank, self._sizes, positions=self._positions
        )

    @property
    def shortest(self) -> int:
        """Tokens of the shortest row that is traced: a window of so many cuts all others."""
        return min(
            shape.length
            for shape, _ in shapes_to_trace([None, None], many=False, padded=False, longest=self._positions)
        )

    def grows_outside(self) -> bool:
        """Whether weights outside the layers grow with their number, as a prefix does: no layer stands for others."""
        return self._deeper is not None and self._deeper.outside() != next(iter(self._tracers.values())).outside()

    def counts(self) -> list[tuple[int, int]]:
        """Trainable and total parameters, by rank."""
        return [tracer.counts(self._layout) for tracer in self._tracers.values()]

    def blocks(self, window: int | None, within: dict[str, Block] | None = None) -> dict[str, Block]:
        """The blocks of an update and of an evaluation, with an attention window of so many tokens.

        `within` are the blocks of rows that no window cuts. Those of padded or packed rows, which need a mask at any
        length, are taken from them, and so is the check that the traced layers stand for all. An evaluation is never
        packed, so it needs padding.
        """
        workload, packed = self._workload, self._workload.packed
        if window is not None:
            for tracer in [*self._tracers.values(), *filter(None, [self._deeper])]:
                tracer.set_window(window)
        traces = {
            "one": ("trace", False, False),
            "many": ("trace", True, workload.padded),
            "evaluation_one": ("evaluation", False, False),
            "evaluation_many": ("evaluation", True, workload.pads_evaluation),
        }
        blocks: dict[str, Block] = {}
        for name, (what, many, padded) in traces.items():
            joined = packed and what == "trace"  # all rows are one
            if joined and name == "many":
                blocks[name] = blocks["one"]
            elif within is not None and (padded or joined):
                blocks[name] = within[name]
            else:
                deeper = within is None and (many or joined)
                length = min(PACKED_LENGTH, 2 * self._positions) if joined else min(LONGER, self._positions)
                block = self._block(what, many, padded, length, deeper=deeper)
                blocks[name] = block if what == "trace" else replace(block, line=[])
        return blocks

    def _block(self, what: str, many: bool, padded: bool, length: int, *, deeper: bool) -> Block:
        """The fitted block of one kind of trace, with `deeper` checked against a model with more layers."""
        ranks = list(self._tracers)
        other, rank = shape_to_check(ranks, length, many=many, padded=padded)
        fit = self._fitted(what, shapes_to_trace(ranks, many=many, padded=padded, longest=length), other, rank)
        if deeper and self._deeper is not None:
            check_layers(
                fit, self._layout.with_repeated_layers()[0], other, ranks[0], getattr(self._deeper, what)(other)
            )
        return block_of(fit, self._layout)

    def _fitted(
        self, what: str, shapes: Sequence[tuple[BatchShape, int | None]], other: BatchShape, rank: int | None
    ) -> Fit:
        """A fit to few traces if that meets another shape to the byte, else to as many as there are coefficients."""
        proof = getattr(self._tracers[rank], what)(other)
        traces: list[Trace] = []
        for count in (FEW, SOME, len(shapes)):
            traces += [getattr(self._tracers[of], what)(shape) for shape, of in shapes[len(traces) : count]]
            fit = fit_traces(traces, shapes[:count], self._layout.depth)
            if fit is not None and is_exact(fit, other, rank, proof):
                return fit
        if fit is None:
            raise UntraceableError(
                f"rows of {self._positions} tokens, the most this model has places for, differ too little in size"
            )
        check_events(fit, other, rank, proof)
        return fit


def _affine(counts: list[int], ranks: tuple[int, ...]) -> tuple[float, float]:
    """A count as a constant and a part for each rank, from the counts at two ranks, or from one where there is none."""
    if len(counts) == 1:
        return float(counts[0]), 0.0
    slope = (counts[0] - counts[1]) / (ranks[0] - ranks[1])
    return counts[0] - slope * ranks[0], slope


def main() -> None:
    """Answer until standard input ends."""
    from tuning.training.kernel_downloads import block_kernel_downloads

    block_kernel_downloads()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    gc.freeze()
    answer_questions(lambda line: build_table(Workload(**line)))


def reason_of(error: Exception) -> str:
    """The reason in words: the message of the error, with its class where it is not our own."""
    message, kind = str(error).strip(), type(error).__name__
    if isinstance(error, UntraceableError):
        return message
    return f"{kind}: {message}" if message else f"a {kind} without a message while the model was built or run"


def answer_questions(table_of: Callable[[dict[str, Any]], Table]) -> None:
    """Answer each JSON line of standard input with a table, or the reason why there is none."""

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        try:
            return table_of(question).to_dict()
        except Exception as error:  # whatever a library raises for a model that it cannot build
            return {"error": reason_of(error)}
        finally:
            gc.collect()

    serve(answer)


if __name__ == "__main__":
    main()
