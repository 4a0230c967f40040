"""From traces to polynomials: few shapes tell what a storage is made of, or say that they do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy
import pytest

from tuning.memory.tracing.fit import FEW, SOME, UntraceableError, fit_traces, is_exact, shape_to_check, shapes_to_trace
from tuning.memory.tracing.table import monomials
from tuning.memory.tracing.trace import Trace
from tuning.memory.workload import CATEGORIES
from tuning.plan.micro_batches import BatchShape

LAYOUTS = [(False, [None]), (False, [8, 4]), (True, [None]), (True, [8, 4])]
Bytes = Callable[[BatchShape, int], int]


def traced(*sizes: Bytes, shape: BatchShape, rank: int | None) -> Trace:
    """Storages of these sizes, each born in an event of its own; the first goes when the last comes."""
    last = len(sizes)
    columns = [(0, n, last - 1 if n == 0 else last, size(shape, rank or 0)) for n, size in enumerate(sizes)]
    return Trace(labels=["0.forward 0"] * last, columns=columns, layers=[(8 * (rank or 0),) * len(CATEGORIES)])


@pytest.mark.parametrize("length", [112, 448])
@pytest.mark.parametrize(("many", "ranks"), LAYOUTS)
def test_what_meets_the_first_shapes_and_the_larger_one_is_no_chance(
    many: bool, ranks: list[int | None], length: int
) -> None:
    """Two sums of so many products that agree at all of these shapes would be dependent there."""
    shapes = shapes_to_trace(ranks, many=many, padded=False)
    names = monomials(many=many, ranked=len(ranks) > 1)
    proven = [*shapes, shape_to_check(ranks, length, many=many, padded=False)]
    matrix = numpy.array([[name(shape, rank or 0) for name in names.values()] for shape, rank in proven], dtype=float)
    assert numpy.linalg.matrix_rank(matrix[:-1]) == len(names) <= len(shapes)
    for count, products in ((FEW, 2), (SOME, 3)):
        met = matrix[[*range(count), -1]]
        met /= numpy.linalg.norm(met, axis=0)
        two = itertools.combinations(range(len(names)), min(2 * products, len(names)))
        assert min(numpy.linalg.svd(met[:, each], compute_uv=False)[-1] for each in two) > 1e-4


@pytest.mark.parametrize(("many", "ranks"), LAYOUTS)
def test_storages_of_one_product_or_two_are_fitted_to_few_traces(many: bool, ranks: list[int | None]) -> None:
    sizes: list[Bytes] = [
        lambda x, r: 4096,
        lambda x, r: 64 * x.rows * x.length,
        lambda x, r: 4 * x.rows * (x.length + 20),
        lambda x, r: 2 * x.rows * x.length * (r or 3),
        lambda x, r: 16 * x.label_tokens - 8,
    ]
    shapes = shapes_to_trace(ranks, many=many, padded=False)[:FEW]
    fit = fit_traces([traced(*sizes, shape=shape, rank=rank) for shape, rank in shapes], shapes, 1)
    assert fit is not None
    other = BatchShape(rows=4 if many else 1, length=1111, label_tokens=77, padded=False)
    for rank in ranks:
        assert is_exact(fit, other, rank, traced(*sizes, shape=other, rank=rank))
        assert not is_exact(fit, other, rank, traced(*sizes[:-1], sizes[0], shape=other, rank=rank))


SQUARED: Bytes = lambda x, r: 4 * x.rows * (x.length + 20) ** 2  # noqa: E731
BOTH: Bytes = lambda x, r: 64 * x.rows * x.length + 4 * r * (x.rows * x.length + 16)  # noqa: E731


@pytest.mark.parametrize(("size", "enough"), [(SQUARED, SOME), (BOTH, SOME), (None, 9)])
def test_what_is_made_of_more_products_takes_more_traces(size: Bytes | None, enough: int) -> None:
    """Attention's weights behind a prompt of 20 tokens, something of two ranks, and four products."""
    size = size or (lambda x, r: SQUARED(x, r) + 8 * x.label_tokens)
    shapes = shapes_to_trace([8, 4], many=True, padded=False)
    traces = [traced(size, size, shape=shape, rank=rank) for shape, rank in shapes]
    fits = {count: fit_traces(traces[:count], shapes[:count], 1) for count in (FEW, SOME, 9)}
    assert fits[FEW] is None and (fits[SOME] is None) == (enough == 9)
    other = BatchShape(rows=4, length=1111, label_tokens=77, padded=False)
    for rank in (8, 4, 64):
        fit = fits[enough]
        assert fit is not None and is_exact(fit, other, rank, traced(size, size, shape=other, rank=rank))


def test_traces_whose_storages_go_at_other_moments_are_refused() -> None:
    shapes = shapes_to_trace([None], many=False, padded=False)[:FEW]
    traces = [traced(lambda x, r: x.length, lambda x, r: 8, shape=shape, rank=rank) for shape, rank in shapes]
    later = [(category, first, 2, size) for category, first, _, size in traces[0].columns]
    with pytest.raises(UntraceableError, match="depend on its sizes"):
        fit_traces([Trace(labels=traces[0].labels, columns=later, layers=traces[0].layers), *traces[1:]], shapes, 1)


def test_live_bytes_are_sums_of_what_lives() -> None:
    trace = Trace(labels=["a", "b", "c"], columns=[(0, 0, 3, 5), (1, 1, 2, 7), (0, 2, 3, -5)], layers=[])
    assert trace.live[:, 0].tolist() == [5, 5, 0] and trace.live[:, 1].tolist() == [0, 7, 0]
    assert trace.peak == 12
    last = trace.only([1, 2], (1, 1))
    assert last.labels == ["b", "c"] and last.live[:, 0].tolist() == [5, 0] and last.live[:, 1].tolist() == [0, 0]
