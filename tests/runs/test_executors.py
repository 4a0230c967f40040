"""One contract, kept by every executor: events in order without a gap, exactly one end, and wait() agrees."""

import threading
import time

import pytest

from tuning.core.errors import ModelError
from tuning.runs.events import END_KINDS
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.executors.thread import ThreadExecutor
from tuning.training.job import Job


def tiny_job(job, emit, commands):
    """A run of a few steps that reads its commands as the real one does."""
    emit("started", total_steps=job.plan["steps"])
    for number in range(1, job.plan["steps"] + 1):
        commands.wait_while_paused()
        for question in commands.take_asks():
            question(None, None, None)
        if commands.stopping:
            emit("cancelled", step=number)
            return "cancelled"
        if number == job.plan.get("raise_at"):
            raise job.plan["error"]
        emit("step", step=number, loss=1.0 / number)
        time.sleep(job.plan.get("sleep", 0))
    if job.plan.get("forgets_to_end"):
        return "finished"
    emit("finished", step=job.plan["steps"])
    if job.plan.get("raises_late"):
        raise ValueError("after the end")
    return "finished"


def a_job(run_id="r1", **plan):
    return Job(run_id=run_id, attempt=1, plan={"steps": 3, **plan}, folder="unused")


@pytest.fixture(params=[InlineExecutor, ThreadExecutor])
def executor(request):
    executor = request.param(tiny_job)
    yield executor
    executor.close()


def check(events, ended):
    assert [event.seq for event in events] == list(range(len(events)))
    assert events[0].kind == "queued"
    assert [event.kind for event in events if event.kind in END_KINDS] == [ended]
    assert events[-1].kind == ended


def test_a_run_finishes(executor):
    events = []
    handle = executor.submit(a_job(), events.append)
    assert handle.wait(10) == "finished" == handle.wait()
    check(events, "finished")
    assert [event.kind for event in events] == ["queued", "started", "step", "step", "step", "finished"]


@pytest.mark.parametrize("error", [ValueError("odd"), ModelError("no such model"), SystemExit(3), MemoryError()])
def test_whatever_is_raised_the_run_fails_and_the_executor_lives(executor, error):
    events = []
    assert executor.submit(a_job(raise_at=2, error=error), events.append).wait(10) == "failed"
    check(events, "failed")
    assert str(error) in events[-1].data["message"] and "Traceback" in events[-1].data["traceback"]
    events = []
    assert executor.submit(a_job("r2"), events.append).wait(10) == "finished"
    check(events, "finished")


def test_a_job_that_forgets_its_end_or_raises_after_it(executor):
    for plan in ({"forgets_to_end": True}, {"raises_late": True}):
        events = []
        assert executor.submit(a_job(**plan), events.append).wait(10) == "finished"
        check(events, "finished")


def test_cancel_during_the_run_and_after_it(executor):
    events, handles = [], []

    def sink(event):
        events.append(event)
        if event.kind == "step" and event.data["step"] == 1:
            stop.set()

    stop = threading.Event()
    if isinstance(executor, InlineExecutor):
        from tuning.training.job import Commands

        commands = Commands()

        def stopping_sink(event):
            sink(event)
            if stop.is_set():
                commands.stop()

        handles.append(executor.submit(a_job(steps=1000), stopping_sink, commands))
    else:
        handles.append(executor.submit(a_job(steps=1000, sleep=0.01), sink))
        assert stop.wait(10)
    handle = handles[0]
    handle.cancel()
    assert handle.wait(10) == "cancelled"
    handle.cancel()
    handle.cancel()
    assert handle.wait(0) == "cancelled"
    check(events, "cancelled")


def test_cancel_after_the_end_changes_nothing(executor):
    events = []
    handle = executor.submit(a_job(), events.append)
    assert handle.wait(10) == "finished"
    handle.cancel()
    assert handle.wait(0) == "finished"
    check(events, "finished")


def test_a_broken_sink_does_not_end_the_executor(executor):
    def broken(event):
        if event.kind != "queued":
            raise OSError("disk full")

    assert executor.submit(a_job(), broken).wait(10) == "failed"
    events = []
    assert executor.submit(a_job("r2"), events.append).wait(10) == "finished"


def test_between_answers_and_raises(executor):
    assert executor.between(lambda *_: 42, timeout=10) == 42
    with pytest.raises(ZeroDivisionError):
        executor.between(lambda *_: 1 // 0, timeout=10)


@pytest.fixture
def threaded():
    executor = ThreadExecutor(tiny_job)
    yield executor
    executor.close()


def test_one_at_a_time_and_the_place_in_line(threaded):
    events = {name: [] for name in "abc"}
    running = threading.Event()

    def first_sink(event):
        events["a"].append(event)
        if event.kind == "step":
            running.set()

    first = threaded.submit(a_job("a", steps=10_000, sleep=0.005), first_sink)
    assert running.wait(10)
    second = threaded.submit(a_job("b"), events["b"].append)
    third = threaded.submit(a_job("c"), events["c"].append)
    assert [threaded.place(name) for name in "abcx"] == [0, 1, 2, None]
    assert second.wait(0.05) is None
    second.cancel()
    second.cancel()
    assert second.wait(0) == "cancelled"
    check(events["b"], "cancelled")
    assert [event.kind for event in events["b"]] == ["queued", "cancelled"]
    assert threaded.place("c") == 1
    first.cancel()
    assert first.wait(10) == "cancelled" and third.wait(10) == "finished"
    check(events["c"], "finished")
    assert events["a"][-1].time <= events["c"][1].time


def test_pause_resume_and_a_question_between_two_updates(threaded):
    events, running = [], threading.Event()
    handle = threaded.submit(
        a_job(steps=10_000, sleep=0.002), lambda event: (events.append(event), event.kind == "step" and running.set())
    )
    assert running.wait(10)
    assert threaded.between(lambda *_: threading.current_thread().name, timeout=10) == "training"
    handle.commands.pause()
    time.sleep(0.1)
    count = len(events)
    time.sleep(0.1)
    assert len(events) == count
    handle.commands.resume()
    time.sleep(0.1)
    assert len(events) > count
    handle.commands.pause()
    handle.cancel()
    assert handle.wait(10) == "cancelled", "a paused run can be stopped"


def test_close_leaves_the_line_queued(threaded):
    running, events = threading.Event(), []
    first = threaded.submit(a_job("a", steps=10_000, sleep=0.005), lambda event: event.kind == "step" and running.set())
    assert running.wait(10)
    threaded.submit(a_job("b"), events.append)
    threaded.close()
    assert first.wait(0) == "cancelled"
    assert [event.kind for event in events] == ["queued"]
