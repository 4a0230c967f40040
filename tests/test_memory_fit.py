"""From traces to polynomials: few shapes tell what a storage is made of, or say that they do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy
import pytest

from tuning.memory.fit import FEW, SOME, Unfit, design, exact, fitted
from tuning.memory.subject import CATEGORIES, Shape
from tuning.memory.table import monomials
from tuning.memory.trace import Trace

LAYOUTS = [((1,), [None]), ((1,), [8, 4]), ((2, 3, 5), [None]), ((2, 3, 5), [8, 4])]
Bytes = Callable[[Shape, int], int]


def traced(*sizes: Bytes, shape: Shape, rank: int | None) -> Trace:
    """Storages of these sizes, each born in an event of its own; the first goes when the last comes."""
    last = len(sizes)
    columns = [(0, n, last - 1 if n == 0 else last, size(shape, rank or 0)) for n, size in enumerate(sizes)]
    return Trace(labels=["0.forward 0"] * last, columns=columns, layers=[(8 * (rank or 0),) * len(CATEGORIES)])


@pytest.mark.parametrize(("rows", "ranks"), LAYOUTS)
def test_the_first_shapes_tell_any_two_products_apart_and_all_of_them_every_one(
    rows: tuple[int, ...], ranks: list[int | None]
) -> None:
    shapes = design(rows, ranks, False)
    names = monomials(many=len(rows) > 1, ranked=len(ranks) > 1)
    matrix = numpy.array([[one(shape, rank or 0) for one in names.values()] for shape, rank in shapes], dtype=float)
    assert numpy.linalg.matrix_rank(matrix) == len(names) <= len(shapes)
    few = matrix[:FEW] / numpy.linalg.norm(matrix[:FEW], axis=0)
    volumes = [abs(numpy.linalg.det(few[:, three])) for three in itertools.combinations(range(len(names)), FEW)]
    assert min(volumes) > 1e-3, "three products lie in a plane"


@pytest.mark.parametrize(("rows", "ranks"), LAYOUTS)
def test_storages_of_one_product_or_two_are_told_by_few_traces(rows: tuple[int, ...], ranks: list[int | None]) -> None:
    sizes: list[Bytes] = [
        lambda x, r: 4096, lambda x, r: 64 * x.rows * x.length, lambda x, r: 4 * x.rows * (x.length + 20),
        lambda x, r: 2 * x.rows * x.length * (r or 3), lambda x, r: 16 * x.labels - 8,
    ]  # fmt: skip
    shapes = design(rows, ranks, False)[:FEW]
    fit = fitted([traced(*sizes, shape=shape, rank=rank) for shape, rank in shapes], shapes, 1)
    assert fit is not None
    larger = Shape(rows=4 if len(rows) > 1 else 1, length=1111, labels=77, padded=False)
    assert exact(fit, larger, ranks[0], traced(*sizes, shape=larger, rank=ranks[0]))
    assert not exact(fit, larger, ranks[0], traced(*sizes[:-1], sizes[0], shape=larger, rank=ranks[0]))


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_made_of_more_products_takes_more_traces(more: int) -> None:
    """Attention's weights behind a prompt of 20 tokens; with a number for each label token four products."""
    squared: Bytes = lambda x, r: 4 * x.rows * (x.length + 20) ** 2 + 8 * more * x.labels  # noqa: E731
    shapes = design((2, 3, 5), [8, 4], False)
    traces = [traced(squared, squared, shape=shape, rank=rank) for shape, rank in shapes]
    assert fitted(traces[:FEW], shapes[:FEW], 1) is None
    enough = len(shapes) if more else SOME
    assert not more or fitted(traces[:SOME], shapes[:SOME], 1) is None
    fit = fitted(traces[:enough], shapes[:enough], 1)
    assert fit is not None
    larger = Shape(rows=4, length=1111, labels=77, padded=False)
    assert exact(fit, larger, 8, traced(squared, squared, shape=larger, rank=8))


def test_traces_whose_storages_go_at_other_moments_are_refused() -> None:
    shapes = design((1,), [None], False)[:FEW]
    traces = [traced(lambda x, r: x.length, lambda x, r: 8, shape=shape, rank=rank) for shape, rank in shapes]
    later = [(category, first, 2, size) for category, first, _, size in traces[0].columns]
    with pytest.raises(Unfit, match="depend on its sizes"):
        fitted([Trace(labels=traces[0].labels, columns=later, layers=traces[0].layers), *traces[1:]], shapes, 1)


def test_live_bytes_are_sums_of_what_lives() -> None:
    trace = Trace(labels=["a", "b", "c"], columns=[(0, 0, 3, 5), (1, 1, 2, 7), (0, 2, 3, -5)], layers=[])
    assert trace.live[:, 0].tolist() == [5, 5, 0] and trace.live[:, 1].tolist() == [0, 7, 0]
    assert trace.peak == 12
    last = trace.only([1, 2], (1, 1))
    assert last.labels == ["b", "c"] and last.live[:, 0].tolist() == [5, 0] and last.live[:, 1].tolist() == [0, 0]
