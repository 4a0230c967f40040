"""Our estimate against GPU peaks that others published: no GPU and no network needed, the tables are traced here.

The table has every figure of `published_peaks.SOURCES` with what was added, the error, and beside it what two common
rules and the null model (all runs take what the first takes) say. One number is fitted where it is not published, and
said to be: the longest row of PEFT's comparison, from its first run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench.published_line import ADDED, Line
from bench.published_peaks import MODELS, SOURCES, Peak, Source
from bench.published_trace import Way, traced
from tuning.bench.measure import markdown
from tuning.memory.workload import Workload

GIB = 2**30


def table(repeats: int) -> str:
    """Exact, so once is enough: `repeats` is not used."""
    return "\n".join(report(lines_of(source), lines_of(source, card=False)) for source in SOURCES)


def lines_of(source: Source, *, card: bool = True) -> list[Line]:
    """Each peak with its table, traced once for equal runs; `card` False counts dropout as a processor keeps it."""
    workloads = [_workload(source, peak, card) for peak in source.peaks]
    distinct = {workload.key: workload for workload in workloads}
    if not card and source.task == "causal_lm":  # these models have no dropout, and these runs no autocast
        return []
    requests = [(workload, Way(base=source.base, adapter=source.adapter)) for workload in distinct.values()]
    tables = dict(zip(distinct, traced(requests)))
    return [
        Line(source=source, peak=peak, workload=workload, memory=tables[workload.key])
        for peak, workload in zip(source.peaks, workloads)
    ]


def _workload(source: Source, peak: Peak, card: bool) -> Workload:
    settings = {
        "task": source.task,
        "precision": peak.precision,
        "attention": source.attention,
        "device": "cpu",
        "gradient_checkpointing": peak.recompute,
        "method": peak.method,
        "optimizer": {"name": peak.optimizer, "momentum": 0.0, "max_grad_norm": 1.0},
    }
    return Workload(
        config=MODELS[peak.model], settings=settings, class_count=source.labels, padded=source.padded, on_cuda=card
    )


def fitted(bytes_at: Callable[[int], int], published: int, limit: int) -> int:
    """The length up to the limit at which the bytes come nearest to what was published."""
    return min(range(16, limit + 1), key=lambda length: abs(bytes_at(length) - published))


def report(lines: Sequence[Line], plain: Sequence[Line] = ()) -> str:
    """One source: its figures, their summary, and where published the bytes between updates."""
    source, first = lines[0].source, lines[0]
    unknown = first.peak.length is None
    length = fitted(first.expected, first.peak.bytes, source.limit) if unknown else 0
    head = [
        "model",
        "run",
        "rows x length",
        "published GiB",
        "ours GiB",
        "added GiB",
        "expected GiB",
        "error %",
        "in our band",
    ]
    body = [_cells(line, line.peak.length or length) for line in lines]
    sentences = [f"Source: {source.where}. Meter: {source.kind}. Settings: {source.settings}."]
    sentences += [f"Added: {ADDED[name][0]}." for name in source.added]
    if first.peak.trained:
        same = sum(line.trained() == line.peak.trained for line in lines)
        sentences.append(f"Trained weights: counted as published in {same} of {len(lines)} runs.")
    if unknown:
        sentences.append(
            f"The longest row is not published; {length} tokens make the first run come out, the rest follow."
        )
    ways = _fitted_ways(lines, length) if unknown else _ways_by_length(plain)
    ways |= {
        f"null model: all take what {first.peak.what} takes": lambda line: first.peak.bytes,
        "accelerate: 4 x the fp32 body, no head": lambda line: 16 * line.model.body_parameters,
        "16 bytes a parameter": lambda line: 16 * line.model.parameters,
    }
    others = [line for line in lines if not unknown or line.workload.key != first.workload.key]
    spread = [[name, *_spread([_error(way(line), line.peak.bytes) for line in others])] for name, way in ways.items()]
    return "\n".join(
        [
            markdown(source.title, head, body),
            "\n\n".join(sentences),
            "",
            markdown("Error", ["estimate", "runs", "median %", "worst %"], spread),
            *([_between(lines)] if first.peak.between else []),
        ]
    )


def _cells(line: Line, length: int) -> list[str]:
    peak, expected = line.peak, line.expected(length)
    return [
        peak.model,
        peak.what,
        f"{peak.rows} x {length}",
        f"{peak.bytes / GIB:.2f}",
        f"{line.ours(length) / GIB:.2f}",
        f"{line.added(length) / GIB:+.2f}",
        f"{expected / GIB:.2f}",
        f"{_error(expected, peak.bytes):+.1f}",
        "yes" if line.inside(length) else "no",
    ]


def _fitted_ways(lines: Sequence[Line], length: int) -> dict[str, Callable[[Line], float]]:
    first, limit = lines[0], lines[0].source.limit
    factor = first.peak.bytes / first.expected(limit)
    return {
        f"ours, the length fitted on {first.peak.what}": lambda line: line.expected(length),
        f"ours at {limit} tokens, a factor fitted on it ({factor:.3f})": lambda line: factor * line.expected(limit),
        f"ours, nothing fitted: rows of {limit} tokens, the limit": lambda line: line.expected(limit),
    }


def _ways_by_length(plain: Sequence[Line]) -> dict[str, Callable[[Line], float]]:
    context = {id(line.peak): line for line in plain}
    ways: dict[str, Callable[[Line], float]] = {
        "ours, nothing fitted": lambda line: line.expected(line.peak.length or 0),
        "ours, nothing added": lambda line: line.ours(line.peak.length or 0) + line.source.context,
    }
    if plain:
        ways["ours, nothing added, dropout as on a processor"] = lambda line: (
            context[id(line.peak)].ours(line.peak.length or 0) + line.source.context
        )
    return ways


def _between(lines: Sequence[Line]) -> str:
    """After updates: one length is fitted on the first run, which is the mean of many."""
    first = lines[0]
    length = fitted(first.between, first.peak.between, first.source.limit)
    body = [
        [
            line.peak.what,
            f"{line.peak.between / GIB:.3f}",
            f"{line.between(length) / GIB:.3f}",
            f"{_error(line.between(length), line.peak.between):+.2f}",
        ]
        for line in lines
    ]
    title = f"Allocated between updates; mean padded length {length}, fitted on {first.peak.what}"
    errors = [
        _error(line.between(length), line.peak.between) for line in lines if line.workload.key != first.workload.key
    ]
    _, median, worst = _spread(errors, 2)
    sentence = (
        f"Weights, gradients, state, and the output still held: off by {median} % in the median, {worst} % at worst."
    )
    return markdown(title, ["run", "published GiB", "ours GiB", "error %"], body) + f"\n{sentence}\n"


def _error(expected: float, published: int) -> float:
    return 100 * (expected / published - 1)


def _spread(errors: Sequence[float], digits: int = 1) -> list[str]:
    sizes = [abs(error) for error in errors]
    return [str(len(errors)), f"{statistics.median(sizes):.{digits}f}", f"{max(sizes):.{digits}f}"]
