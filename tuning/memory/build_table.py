"""Make the table of one subject. A child process of its own: `python -m tuning.memory.build_table`.

Comes in: a subject as JSON on standard input, one a line.  Goes out: for each, one line on standard output: the table,
or {"error": why it cannot be traced}.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from typing import Any

from tuning.memory.fit import Unfit, check, design, fit_block
from tuning.memory.subject import Shape, Subject
from tuning.memory.table import Table

RANKS = (8, 4)
SHALLOW = 3
"""Layers that are traced of a deep model: its ends, and one that stands for all between."""
DEEP = 12


def build_table(subject: Subject) -> Table:
    """Trace and fit. Raises Unfit, or what the libraries raise on a model they cannot build."""
    gc.disable()  # frees must come where reference counts put them
    try:
        return _build(subject, min(subject.layers, SHALLOW))
    except Unfit:  # layers that differ: a model that is not deep is traced whole
        if not SHALLOW < subject.layers <= DEEP:
            raise
        return _build(subject, subject.layers)


def _build(subject: Subject, depth: int) -> Table:
    from tuning.memory.torch_trace import Tracer

    layers = subject.layers
    ranks: list[int | None] = [None] if subject.rank is None else list(RANKS)
    tracers = {rank: Tracer(subject, depth, rank) for rank in ranks}
    # what is evaluated is never packed, so it needs padding there as anywhere
    updates = [_traced(tracers, Tracer.trace, rows, subject.padded) for rows in _rows(subject)]
    evaluations = [_traced(tracers, Tracer.evaluation, rows, subject.pads_evaluation) for rows in ((1,), (2, 3))]
    one, many = (fit_block(traces, shapes, layers, depth) for shapes, traces in (updates[0], updates[-1]))
    alone, together = (fit_block(traces, shapes, layers, depth) for shapes, traces in evaluations)
    counts = [tracers[rank].counts(layers) for rank in ranks]
    rank, deeper = ranks[0], Tracer(subject, depth + 1, ranks[0]) if depth < layers else None
    long = Shape(
        rows=1 if subject.packed else 4, length=448 if subject.packed else 112, labels=200, padded=subject.padded
    )
    _check(long, rank, updates[-1], depth, tracers[rank].trace, deeper and deeper.trace)
    wide = Shape(rows=4, length=112, labels=200, padded=subject.pads_evaluation)
    _check(wide, rank, evaluations[-1], depth, tracers[rank].evaluation, deeper and deeper.evaluation)
    return Table(
        layers=layers, one=one, many=many, evaluation_one=replace(alone, line=[]),
        evaluation_many=replace(together, line=[]), trainable=_affine([found[0] for found in counts], ranks),
        total=_affine([found[1] for found in counts], ranks),
    )  # fmt: skip


def _rows(subject: Subject) -> tuple[tuple[int, ...], ...]:
    """Numbers of rows to trace together: one row alone takes other paths than several."""
    return ((1,),) if subject.packed else ((1,), (2, 3))


def _traced(tracers: dict[int | None, Any], trace: Any, rows: tuple[int, ...], padded: bool) -> tuple[Any, Any]:
    shapes = design(rows, list(tracers), padded and rows != (1,))
    return shapes, [trace(tracers[rank], shape) for shape, rank in shapes]


def _check(shape: Shape, rank: int | None, traced: Any, depth: int, trace: Any, deeper: Any) -> None:
    """A longer shape, and where layers were left out one layer more, against what the polynomials say."""
    shapes, traces = traced
    check(fit_block(traces, shapes, depth, depth), shape, rank, trace(shape).peak)
    if deeper is not None:
        check(fit_block(traces, shapes, depth + 1, depth), shape, rank, deeper(shape).peak)


def _affine(counts: list[int], ranks: list[int | None]) -> tuple[float, float]:
    if len(counts) == 1:
        return float(counts[0]), 0.0
    slope = (counts[0] - counts[1]) / ((ranks[0] or 0) - (ranks[1] or 0))
    return counts[0] - slope * (ranks[0] or 0), slope


def main() -> None:
    from tuning.training.offline import keep_to_this_machine

    keep_to_this_machine()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = build_table(Subject(**json.loads(line))).to_dict()
        except Exception as error:  # whatever a library says about a model it cannot build
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
