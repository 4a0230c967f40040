"""The store on a real SQLite file: nothing lost, nothing twice, the right state, and small answers."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tuning.core.errors import RunError
from tuning.runs.events import Emitter, Event
from tuning.runs.store import RunStore


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    yield store
    store.close()


def create(store, run_id="r1", **more):
    store.create_run(run_id, more.pop("name", run_id), {"seed": 0}, {"plan": 1}, **more)
    return Emitter(run_id, 1, store.append)


def step(index, loss=1.0):
    return {"step": index, "loss": loss, "seconds": index / 2, "input_tokens": index, "peak_bytes": 100 + index}


def test_state_follows_from_events(store):
    emit = create(store)
    assert store.run("r1").state == "queued"
    emit("started", total_steps=3)
    emit("phase", name="loading")
    store.flush()
    row = store.run("r1")
    assert (row.state, row.phase, row.total_steps) == ("running", "loading", 3)
    emit("step", **step(1, 2.0))
    emit("eval", step=1, loss=1.5, metrics={})
    emit("eval", step=2, loss=1.8, metrics={})
    emit("paused")
    store.flush()
    row = store.run("r1")
    assert (row.state, row.step, row.loss) == ("paused", 1, 2.0)
    assert (row.eval_loss, row.best_eval, row.peak_bytes) == (1.8, 1.5, 101)
    emit("resumed")
    emit("finished", message="done")
    store.flush()
    row = store.run("r1")
    assert (row.state, row.phase, row.message) == ("finished", None, "done")
    assert row.settings == {"seed": 0}


def test_replay_is_harmless_and_strangers_are_dropped(store):
    create(store)
    event = Event(run_id="r1", attempt=1, seq=0, time=1.0, kind="step", data=step(1))
    for _ in range(3):
        store.append(event)
    store.append(Event(run_id="nobody", attempt=1, seq=0, time=1.0, kind="step", data=step(1)))
    store.flush()
    assert len(store.events("r1")) == 1
    assert store.series_after({"nobody": 0}) == {}
    with pytest.raises(RunError, match="nobody"):
        store.run("nobody")


def test_cursor_gives_only_what_is_new(store):
    emit = create(store)
    for i in range(1, 4):
        emit("step", **step(i))
    store.flush()
    first = store.series_after({"r1": 0})["r1"]
    assert [p["step"] for p in first["step"]] == [1, 2, 3]
    again = store.series_after({"r1": first["id"]})["r1"]
    assert again == {"id": first["id"], "step": [], "eval": []}
    emit("step", **step(4))
    emit("eval", step=4, loss=0.5, metrics={"accuracy": 1.0})
    store.flush()
    new = store.series_after({"r1": first["id"]})["r1"]
    assert [p["step"] for p in new["step"]] == [4]
    assert new["eval"] == [{"step": 4, "loss": 0.5, "metrics": {"accuracy": 1.0}}]


def test_version_changes_with_the_list_and_not_with_points(store):
    emit = create(store)
    store.flush()
    before = store.list_version()
    emit("step", **step(1))
    emit("eval", step=1, loss=1.0, metrics={})
    store.flush()
    assert store.list_version() == before
    for change in (
        lambda: store.rename("r1", "new"),
        lambda: store.note("r1", "hm"),
        lambda: store.delete("r1"),
        lambda: store.undelete("r1"),
        lambda: (emit("started", total_steps=2), store.flush()),
    ):
        change()
        assert store.list_version() > before
        before = store.list_version()


def test_delete_hides_and_undelete_brings_back_every_point(store):
    emit = create(store)
    emit("step", **step(1))
    emit("finished")
    store.delete("r1")
    assert store.runs() == []
    assert [row.run_id for row in store.runs(include_deleted=True)] == ["r1"]
    store.undelete("r1")
    assert [row.run_id for row in store.runs()] == ["r1"]
    assert len(store.series_after({"r1": 0})["r1"]["step"]) == 1


def test_a_hundred_thousand_points(store):
    emit = create(store)
    for i in range(100_000):
        emit("step", **step(i, loss=99.0 if i == 50_505 else 1.0 + (i % 7) / 10))
    store.flush()
    first = store.series_after({"r1": 0})["r1"]
    steps = [point["step"] for point in first["step"]]
    assert 1_000 < len(steps) <= 2_000
    assert steps == sorted(steps)
    assert steps[0] == 0 and steps[-1] == 99_999
    assert 50_505 in steps, "a spike must survive thinning"
    emit("step", **step(100_000))
    store.flush()
    assert [point["step"] for point in store.series_after({"r1": first["id"]})["r1"]["step"]] == [100_000]
    assert len(store.events("r1")) == 100_001, "everything stays on disk"


def test_many_threads_at_once(store):
    emits = [create(store, f"r{i}") for i in range(4)]

    def fill(emit):
        for i in range(300):
            emit("step", **step(i))

    threads = [threading.Thread(target=fill, args=(emit,)) for emit in emits]
    for thread in threads:
        thread.start()
    seen, cursor = [], 0
    while len(seen) < 300:
        answer = store.series_after({"r0": cursor}).get("r0")
        if answer:
            cursor = answer["id"]
            seen += [point["step"] for point in answer["step"]]
    for thread in threads:
        thread.join()
    assert seen == list(range(300))


def test_appended_events_are_visible_soon(store):
    emit = create(store)
    emit("step", **step(1))
    deadline = time.monotonic() + 5
    while not store.series_after({"r1": 0}):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_duplicate_id_or_unknown_parent_is_refused(store):
    create(store)
    with pytest.raises(RunError):
        store.create_run("r1", "again", {}, {})
    with pytest.raises(RunError):
        store.create_run("r2", "x", {}, {}, parent="nobody")
    create(store, "r3", parent="r1", from_step=2)
    assert store.run("r3").parent == "r1"


def test_color_slots_differ(store):
    for i in range(5):
        create(store, f"r{i}")
    assert len({row.slot for row in store.runs()}) == 5


def test_another_store_does_not_touch_a_living_owners_run(tmp_path):
    mine, theirs = RunStore(tmp_path), RunStore(tmp_path)
    try:
        create(mine)("started", total_steps=1)
        create(mine, "r2")
        mine.flush()
        assert theirs.mark_interrupted() == []
        assert theirs.requeue_orphans() == []
    finally:
        mine.close()
    try:
        assert theirs.mark_interrupted() == ["r1"]
        assert theirs.run("r1").state == "interrupted"
        assert [row.run_id for row in theirs.requeue_orphans()] == ["r2"]
        assert theirs.run("r2").state == "queued"
    finally:
        theirs.close()


def test_the_epoch_belongs_to_the_file(tmp_path):
    first = RunStore(tmp_path)
    first.close()
    first.close()
    second = RunStore(tmp_path)
    assert second.store_id == first.store_id
    second.close()
    with pytest.raises(RunError):
        second.runs()


CHILD = """
import sys, itertools, time
from tuning.runs.events import Emitter
from tuning.runs.store import RunStore
store = RunStore(sys.argv[1])
store.create_run("r1", "r1", {}, {})
emit = Emitter("r1", 1, store.append)
emit("started", total_steps=10**6)
cursor = 0
for i in itertools.count(1):
    emit("step", step=i, loss=1.0 / i)
    answer = store.series_after({"r1": cursor}).get("r1")
    if answer:
        cursor = answer["id"]
        for point in answer["step"]:
            print(point["step"], flush=True)
"""


def test_kill_nine_loses_no_announced_point(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    announced = [int(child.stdout.readline()) for _ in range(500)]
    other = RunStore(tmp_path)
    try:
        assert other.mark_interrupted() == [], "its owner still lives"
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read()
        announced += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        child.wait()
        stored = {event.data["step"] for event in other.events("r1") if event.kind == "step"}
        assert len(announced) >= 500 and set(announced) <= stored
        assert other.mark_interrupted() == ["r1"]
        row = other.run("r1")
        assert row.state == "interrupted" and row.step == max(stored)
        assert str(row.step) in row.message
    finally:
        other.close()
