"""Make the table of one subject. A child process of its own: `python -m tuning.memory.build_table`.

Comes in: a subject as JSON on standard input, one a line.  Goes out: for each, one line on standard output: the table,
or {"error": why it cannot be traced}.
"""

from __future__ import annotations

import gc
import json
import sys
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
    traced = []
    for rows in ((1,),) if subject.packed else ((1,), (2, 3)):
        shapes = design(rows, ranks, subject.padded and rows != (1,))
        traced.append((shapes, [tracers[rank].trace(shape) for shape, rank in shapes]))
    blocks = [fit_block(traces, shapes, layers, depth) for shapes, traces in traced]
    counts = [tracers[rank].counts(layers) for rank in ranks]
    _check(subject, tracers[ranks[0]], ranks[0], traced[-1], layers, depth)
    return Table(
        layers=layers, one=blocks[0], many=blocks[-1], trainable=_affine([found[0] for found in counts], ranks),
        total=_affine([found[1] for found in counts], ranks),
    )  # fmt: skip


def _check(subject: Subject, tracer: Any, rank: int | None, traced: Any, layers: int, depth: int) -> None:
    """A longer shape, and where layers were left out one layer more, against what the polynomials say."""
    from tuning.memory.torch_trace import Tracer

    shapes, traces = traced
    shape = Shape(
        rows=1 if subject.packed else 4, length=448 if subject.packed else 112, labels=200, padded=subject.padded
    )
    check(fit_block(traces, shapes, depth, depth), shape, rank, tracer.peak(shape))
    if depth < layers:
        deeper = Tracer(subject, depth + 1, rank)
        check(fit_block(traces, shapes, depth + 1, depth), shape, rank, deeper.peak(shape))


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
