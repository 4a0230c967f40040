"""The contract of every executor: events in order without a gap, exactly one end, and commands that are obeyed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.toy_runs import StartedRun, toy_job, toy_run
from tuning.core.errors import ModelError, RunError
from tuning.runs.events import END_KINDS, Event
from tuning.runs.executors.base import Executor
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.executors.thread import ThreadExecutor

LONG = {"steps": 100_000, "sleep": 0.002}
"""A run that only a command ends."""


@pytest.fixture(params=[InlineExecutor, ThreadExecutor])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor: Executor = request.param(toy_run)
    yield executor
    executor.close()


def check_events(events: list[Event], end: str) -> None:
    assert [event.seq for event in events] == list(range(len(events)))
    assert events[0].kind == "queued"
    assert [event.kind for event in events if event.kind in END_KINDS] == [end]
    assert events[-1].kind == end


def test_a_run_is_accepted_and_finishes(executor: Executor) -> None:
    events: list[Event] = []
    handle = executor.submit(toy_job(), events.append)
    assert handle.wait(10) == "finished" == handle.wait() and handle.run_id == "r1"
    check_events(events, "finished")
    assert [event.kind for event in events] == ["queued", "started", "step", "step", "step", "finished"]


def test_runs_go_in_the_order_of_their_submission_and_never_at_once(executor: Executor) -> None:
    events: list[Event] = []
    handles = [executor.submit(toy_job(name), events.append) for name in "abc"]
    assert [handle.wait(10) for handle in handles] == ["finished"] * 3
    working = [event.run_id for event in events if event.kind != "queued"]
    assert working == ["a"] * 5 + ["b"] * 5 + ["c"] * 5
    for name in "abc":
        check_events([event for event in events if event.run_id == name], "finished")


def test_the_running_run_is_the_first_in_the_queue(executor: Executor) -> None:
    assert executor.queue_position("r1") is None
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    assert executor.queue_position("r1") == 0 and executor.queue_position("another") is None
    run.commands.stop()
    assert run.wait() == "cancelled"
    assert StartedRun(executor, toy_job("r2")).wait() == "finished"
    assert executor.queue_position("r1") is None


def test_a_paused_run_waits_until_it_is_unpaused(executor: Executor) -> None:
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    run.commands.pause()
    time.sleep(0.1)  # the step in hand
    count = len(run.events)
    time.sleep(0.1)
    assert len(run.events) == count
    run.commands.unpause()
    run.wait_for_event(after=count)
    run.commands.stop()
    assert run.wait() == "cancelled"
    check_events(run.events, "cancelled")


@pytest.mark.parametrize("paused", [False, True])
def test_a_run_can_be_stopped_at_any_time_and_more_than_once(executor: Executor, paused: bool) -> None:
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    if paused:
        run.commands.pause()
    run.commands.stop()
    run.commands.stop()
    assert run.wait() == "cancelled"
    check_events(run.events, "cancelled")


def test_a_stop_after_the_end_changes_nothing(executor: Executor) -> None:
    events: list[Event] = []
    handle = executor.submit(toy_job(), events.append)
    assert handle.wait(10) == "finished"
    handle.cancel()
    handle.cancel()
    assert handle.wait(0) == "finished"
    check_events(events, "finished")


def test_work_between_updates_is_answered_or_raises(executor: Executor) -> None:
    assert executor.run_between_updates(lambda *_: 42, timeout=10) == 42
    with pytest.raises(ZeroDivisionError):
        executor.run_between_updates(lambda *_: 1 // 0, timeout=10)
    assert executor.submit_task(lambda *_: 43).done.result(10) == 43


def test_work_is_done_while_a_run_goes_on(executor: Executor) -> None:
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    assert executor.run_between_updates(lambda *_: len(run.events), timeout=10) >= 3
    count = len(run.events)
    run.wait_for_event(after=count)
    run.commands.stop()
    assert run.wait() == "cancelled"
    check_events(run.events, "cancelled")


@pytest.mark.parametrize("error", [ValueError("odd"), ModelError("no such model"), SystemExit(3), MemoryError()])
def test_whatever_is_raised_is_reported_and_the_next_run_goes(executor: Executor, error: BaseException) -> None:
    events: list[Event] = []
    assert executor.submit(toy_job(raise_at=2, error=error), events.append).wait(10) == "failed"
    check_events(events, "failed")
    assert str(error) in events[-1].data["message"] and "Traceback" in events[-1].data["traceback"]
    events = []
    assert executor.submit(toy_job("r2"), events.append).wait(10) == "finished"
    check_events(events, "finished")


@pytest.mark.parametrize("fault", ["forgets_to_end", "raises_late"])
def test_a_run_has_one_end_whatever_it_forgets_or_raises(executor: Executor, fault: str) -> None:
    events: list[Event] = []
    assert executor.submit(toy_job(**{fault: True}), events.append).wait(10) == "finished"
    check_events(events, "finished")


def test_a_broken_sink_fails_its_run_and_the_next_one_goes(executor: Executor) -> None:
    def broken(event: Event) -> None:
        if event.kind != "queued":
            raise OSError("disk full")

    assert executor.submit(toy_job(), broken).wait(10) == "failed"
    assert executor.submit(toy_job("r2"), lambda event: None).wait(10) == "finished"


def test_closing_stops_the_run_and_refuses_what_comes_later(executor: Executor) -> None:
    run = StartedRun(executor, toy_job(**LONG))
    run.wait_for_event()
    executor.close()
    executor.close()
    assert run.wait() == "cancelled"
    check_events(run.events, "cancelled")
    with pytest.raises(RunError, match="shutting down"):
        executor.submit(toy_job("r2"), lambda event: None)
    with pytest.raises(RunError, match="shutting down"):
        executor.submit_task(lambda *_: 1)
