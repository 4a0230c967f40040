"""Both ways to find a micro-batch's memory, a traced table and the formula, keep the contract of `BatchMemory`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuning.memory.batch_memory import BatchMemory
from tuning.memory.traced import TracedMemory
from tuning.memory.usage import MemoryUsage, usage_of
from tuning.memory.workload import CATEGORIES
from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.plan.plan import plan_for

SHAPES = [
    BatchShape(rows=1, length=16, label_tokens=4, padded=False),
    BatchShape(rows=4, length=48, label_tokens=60, padded=True),
    BatchShape(rows=8, length=64, label_tokens=200, padded=False),
]
BATCHES = [
    PeakCandidate(shape=shape, accumulate=accumulate, first=first)
    for shape in SHAPES
    for accumulate in (False, True)
    for first in (False, True)
]


@pytest.fixture(scope="module")
def usages() -> dict[str, MemoryUsage]:
    traced = usage_of(plan_for({"method": {"name": "lora"}, "device": "cpu"}))
    return {"traced": traced, "approximate": traced.by_formula()}


@pytest.fixture(params=["traced", "approximate"])
def memory(request: pytest.FixtureRequest, usages: dict[str, MemoryUsage]) -> BatchMemory:
    memory = usages[request.param].memory
    assert memory.kind == request.param
    return memory


def test_the_total_of_a_micro_batch_is_the_sum_at_its_peak(memory: BatchMemory) -> None:
    for batch in BATCHES:
        parts, point = memory.peak(batch)
        assert parts.keys() == set(CATEGORIES) and min(parts.values()) >= 0 and point
        assert memory.total(batch) == pytest.approx(sum(parts.values()), abs=len(CATEGORIES))


def test_the_total_of_a_forward_pass_is_the_sum_at_its_peak(memory: BatchMemory) -> None:
    for shape in SHAPES:
        parts, point = memory.forward_peak(shape)
        assert parts.keys() == set(CATEGORIES) and point
        assert memory.forward_total(shape) == pytest.approx(sum(parts.values()), abs=len(CATEGORIES))


def test_more_rows_and_longer_ones_take_more(memory: BatchMemory) -> None:
    totals = [memory.total(PeakCandidate(shape=shape, accumulate=True)) for shape in SHAPES]
    assert totals == sorted(totals) and totals[0] < totals[-1]


def test_the_candidates_for_sharing_hold_the_highest_point(memory: BatchMemory) -> None:
    batches = [batch for batch in BATCHES if not batch.first]
    candidates = memory.points_to_shard(batches)
    assert {batch for batch, _, _ in candidates} <= set(batches)
    assert all(
        point.partition(".")[0] in ("0", "1", "2") and parts.keys() == set(CATEGORIES) for _, point, parts in candidates
    )
    highest = max(sum(parts.values()) for _, _, parts in candidates)
    assert highest == pytest.approx(max(map(memory.total, batches)), abs=len(CATEGORIES))


def test_rows_of_equal_length_are_shared_by_the_table_that_their_peak_comes_from(
    usages: dict[str, MemoryUsage],
) -> None:
    padded, even = usages["traced"].memory, usage_of(plan_for({"method": {"name": "full"}, "device": "cpu"})).memory
    assert isinstance(padded, TracedMemory) and isinstance(even, TracedMemory)
    memory = replace(padded, even_table=even.table)
    batch = PeakCandidate(shape=SHAPES[2], accumulate=True)
    highest = max(sum(parts.values()) for _, _, parts in memory.points_to_shard([batch]))
    assert highest == pytest.approx(memory.total(batch), abs=len(CATEGORIES))
    assert memory.total(batch) != padded.total(batch)


def test_the_line_of_an_update_reaches_its_peak_or_is_empty(memory: BatchMemory) -> None:
    for batch in [batch for batch in BATCHES if not batch.first]:
        line = memory.through_step(batch)
        assert line or memory.kind == "approximate"
        if line:
            assert max(size for _, size in line) == pytest.approx(memory.total(batch), abs=len(CATEGORIES))
