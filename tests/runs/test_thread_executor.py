"""The background thread: what waits in its queue, and what is done in it between updates."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.toy_runs import StartedRun, toy_job, toy_run
from tuning.runs.events import Event
from tuning.runs.executors.thread import ThreadExecutor

LONG = {"steps": 100_000, "sleep": 0.002}


@pytest.fixture
def executor() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor(toy_run)
    yield executor
    executor.close()


def test_runs_in_the_queue_have_their_position_and_can_be_stopped_there(executor: ThreadExecutor) -> None:
    events: dict[str, list[Event]] = {name: [] for name in "bc"}
    first = StartedRun(executor, toy_job("a", **LONG))
    first.wait_for_event()
    second = executor.submit(toy_job("b"), events["b"].append)
    third = executor.submit(toy_job("c"), events["c"].append)
    assert [executor.queue_position(name) for name in "abcx"] == [0, 1, 2, None]
    assert second.wait(0.05) is None
    second.cancel()
    second.cancel()
    assert second.wait(0) == "cancelled"
    assert [event.kind for event in events["b"]] == ["queued", "cancelled"]
    assert executor.queue_position("c") == 1
    first.handle.cancel()
    assert first.wait() == "cancelled" and third.wait(10) == "finished"
    assert first.events[-1].time <= events["c"][1].time


def test_work_is_done_in_the_thread_of_the_runs(executor: ThreadExecutor) -> None:
    def name(*_: object) -> str:
        return threading.current_thread().name

    assert executor.run_between_updates(name, timeout=10) == "training"
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    assert executor.run_between_updates(name, timeout=10) == "training"
    run.handle.cancel()
    assert run.wait() == "cancelled"


def test_closing_leaves_the_queue_queued(executor: ThreadExecutor) -> None:
    events: list[Event] = []
    first = StartedRun(executor, toy_job("a", **LONG))
    first.wait_for_event()
    executor.submit(toy_job("b"), events.append)
    executor.close()
    assert first.wait() == "cancelled"
    assert [event.kind for event in events] == ["queued"]
