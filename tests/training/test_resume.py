"""A run that is killed, stopped and goes on is the run that nobody disturbed: curve, best, patience, card, weights."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.method_matrix import CLASSES, MATRIX, MatrixJobs, Row
from support.tiers import one_of_each
from support.tiny_jobs import run
from tuning.methods import METHODS
from tuning.runs.events import Event
from tuning.settings.schema import choices
from tuning.training.job import Commands, Job

torch = pytest.importorskip("torch")

LORA, FULL = {"name": "lora", "r": 4}, {"name": "full"}
DROPPED = LORA | {"dropout": 0.2}
OTHERS = {
    "dropout": Row(method=DROPPED),
    "dropout-classes": Row(method=DROPPED, task=CLASSES),
    "qlora-dropout": Row(method={"name": "qlora", "r": 4, "dropout": 0.2}),
    "packing": Row(method=DROPPED, more={"data": {"packing": True}}),
    "autocast_bf16": Row(method=FULL, more={"precision": "autocast_bf16"}),
    "checkpointing": Row(method=DROPPED, more={"gradient_checkpointing": True}),
    "r-tuning": Row(
        method=LORA, more={"recipe": {"name": "r_tuning"}, "data": {"train_rows": 16}, "eval": {"max_new_tokens": 2}}
    ),
    "written": Row(method=LORA, more={"eval": {"metrics": ["exact_match"], "max_new_tokens": 2, "generate_rows": 3}}),
    "layerwise-gap-2": Row(
        method={"name": "galore", "rank": 4, "update_gap": 2, "layerwise": True},
        more={"gradient_accumulation_steps": 1, "optimizer": {"max_grad_norm": None}},
    ),
} | {
    f"{name}-{method['name']}": Row(
        method=method, more={"optimizer": {"name": name, "momentum": 0.9 if name == "sgd" else 0.0}}
    )
    for name in choices("optimizer.name")
    for method in (FULL, LORA)
}
CASES = {row.id: row for row in MATRIX} | OTHERS
NUMBERS = ("loss", "grad_norm", "learning_rate", "epoch", "trained_tokens", "input_tokens", "examples", "metrics")


class Killed(BaseException):
    """The end of a process, as far as a run can tell."""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatrixJobs]:
    jobs = MatrixJobs(tmp_path_factory.mktemp("jobs"))
    run(jobs.of(OTHERS["dropout"], max_steps=1))
    gc.collect()
    gc.freeze()  # what is imported by now is not looked through at every measured update of every run below
    yield jobs
    gc.unfreeze()


def attempt(job: Job, number: int, kind: str, step: int, how: str) -> list[Event]:
    """The events of an attempt that is killed or stopped behind an event of this kind and step."""
    commands, events = Commands(), list[Event]()

    def heard(event: Event) -> None:
        events.append(event)
        if event.kind == kind and event.data["step"] == step:
            if how == "killed":
                raise Killed
            commands.stop()

    if how == "killed":
        with pytest.raises(Killed):
            run(replace(job, attempt=number), commands, heard)
    else:
        assert run(replace(job, attempt=number), commands, heard)[0] == "cancelled", events[-1]
    return events


def curve(events: list[Event]) -> dict[tuple[str, int], dict[str, Any]]:
    """The numbers of every step and evaluation; where two attempts made the same one, they must be the same."""
    points: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        if event.kind in ("step", "eval"):
            point = {key: event.data[key] for key in NUMBERS if key in event.data}
            assert points.setdefault((event.kind, event.data["step"]), point) == point
    return points


def left_in(folder: Path) -> dict[str, bytes | str]:
    """All weights and cards that a run has left, cards without the time it took."""
    files: dict[str, bytes | str] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors" and not name.startswith("checkpoints"):
            files[name] = file.read_bytes()
        if file.name == "README.md":
            files[name] = re.sub(r" updates in \d+ s", " updates", file.read_text("utf-8"))
    return files


def same_end(parts: list[Event], whole: list[Event]) -> None:
    expected, resumed = ({key: end.data[key] for key in end.data if key != "seconds"} for end in (whole[-1], parts[-1]))
    assert (parts[-1].kind, resumed) == (whole[-1].kind, expected)
    assert whole[-1].kind == "finished"


def test_every_method_and_optimizer_is_among_the_cases() -> None:
    assert {row.method["name"] for row in CASES.values()} == {method.name for method in METHODS if method.updates}
    used = {(row.more or {}).get("optimizer", {}).get("name") for row in CASES.values()}
    assert set(choices("optimizer.name")) <= used


@pytest.mark.parametrize("row", one_of_each(CASES.values(), lambda row: row.method["name"]), ids=CASES)
def test_killed_once_and_stopped_once_it_is_the_undisturbed_run(jobs: MatrixJobs, row: Row) -> None:
    changes = {"max_steps": 6, "eval": {"every": 2}, "save": {"every": 3}, "data": {"eval_rows": 6}}
    whole_job, job = jobs.of(row, **changes), jobs.of(row, **changes)
    state, whole = run(whole_job)
    assert state == "finished", whole[-1].data
    parts = attempt(job, 1, "step", 4, "killed")
    parts += attempt(job, 2, "step", 5, "stopped")
    state, last = run(replace(job, attempt=3))
    assert [event.data["step"] for event in last if event.kind == "step"] == [6]
    assert curve(parts + last) == curve(whole)
    same_end(last, whole)
    assert left_in(Path(job.folder)) == left_in(Path(whole_job.folder))


class StoppedAtCheck(Commands):
    """A stop that comes just before the loop looks for the n-th time, counted from where the updates begin."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self._left, self._begun = checks, False

    def take_tasks(self, most: int | None = None) -> list[Any]:
        self._begun = True
        return super().take_tasks(most)

    @property
    def stopping(self) -> bool:
        self._left -= self._begun
        if self._left <= 0:
            self.stop()
        return super().stopping


@pytest.mark.parametrize("row", [OTHERS["dropout"], OTHERS["layerwise-gap-2"]], ids=["dropout", "layerwise"])
def test_a_stop_at_any_moment_changes_nothing(jobs: MatrixJobs, row: Row) -> None:
    """In an update, between two, in an evaluation, in samples, behind the last update."""
    changes = {
        "max_steps": 3,
        "micro_batch_size": 2,
        "eval": {"every": 2, "max_new_tokens": 3},
        "data": {"eval_rows": 3},
        "sample": {"prompts": ["the red"], "every": 2},
    }
    whole_job = jobs.of(row, **changes)
    _, whole = run(whole_job)
    at, states = 0, set()
    while "finished" not in states:
        at += 2
        job = jobs.of(row, **changes)
        state, first = run(job, StoppedAtCheck(at))
        states.add(state)
        step = first[-1].data["step"]
        there = sorted(path.name for path in (Path(job.folder) / "checkpoints").glob("*"))
        if state == "finished":
            assert there == [], "nobody asked for them, and it is over"
            break
        assert there == ([f"step-{step:08d}"] if step else [])
        state, last = run(replace(job, attempt=2))
        assert state == "finished" and curve(first + last) == curve(whole), at
        same_end(last, whole)
        samples = {(event.data["step"], event.data["text"]) for event in first + last if event.kind == "sample"}
        assert samples == {(event.data["step"], event.data["text"]) for event in whole if event.kind == "sample"}
        assert left_in(Path(job.folder)) == left_in(Path(whole_job.folder))
    assert at > 8


def test_a_checkpoint_of_a_run_that_had_no_patience_left_does_not_go_on(jobs: MatrixJobs) -> None:
    """Killed between its last evaluation and its end, it ends where it would have ended."""
    row = Row(method=FULL)
    changes = {
        "max_steps": 60,
        "eval": {"every": 1, "patience": 3},
        "save": {"every": 1},
        "optimizer": {"learning_rate": 0.1},
        "data": {"eval_rows": 6, "train_rows": 8},
    }
    _, whole = run(jobs.of(row, **changes))
    end = whole[-1].data["step"]
    assert end < 60
    job = jobs.of(row, **changes)
    parts = attempt(job, 1, "checkpoint", end, "killed")
    _, last = run(replace(job, attempt=2))
    assert [event for event in last if event.kind == "step"] == [] and curve(parts + last) == curve(whole)
    same_end(last, whole)


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def cut(folder: Path) -> None:
    file = folder / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def turned(folder: Path) -> None:
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-9] ^= 64
    file.write_bytes(data)


HARMS: dict[str, Callable[[Path], Any]] = {
    "state emptied": lambda folder: (folder / "state.json").write_text(""),
    "state no object": lambda folder: (folder / "state.json").write_text("[1]"),
    "optimizer cut": cut,
    "a bit turned": turned,
    "weights gone": lambda folder: (folder / "weights.safetensors").unlink(),
    "folder emptied": emptied,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_checkpoint_that_cannot_be_read_falls_back_to_the_one_before(
    jobs: MatrixJobs, harm: Callable[[Path], Any]
) -> None:
    changes = {"max_steps": 5, "save": {"every": 2}, "eval": {"every": 2}, "data": {"eval_rows": 6}}
    whole_job, job = (jobs.of(OTHERS["dropout"], **changes) for _ in range(2))
    _, whole = run(whole_job)
    parts = attempt(job, 1, "step", 5, "killed")
    checkpoints = Path(job.folder) / "checkpoints"
    harm(checkpoints / "step-00000004")
    parts += attempt(job, 2, "step", 3, "killed")
    (message,) = [event.data["message"] for event in parts if event.kind == "warning"]
    assert "checkpoint of update 4 cannot be read" in message and "goes on from update 2" in message
    state, last = run(replace(job, attempt=3))
    assert state == "finished" and [event.data["step"] for event in last if event.kind == "step"] == [3, 4, 5]
    assert curve(parts + last) == curve(whole)
    assert left_in(Path(job.folder)) == left_in(Path(whole_job.folder))


def test_where_no_checkpoint_can_be_read_it_begins_anew_and_says_so(jobs: MatrixJobs) -> None:
    changes = {"max_steps": 3, "save": {"every": 1}, "data": {"eval_rows": 6}}
    whole_job, job = (jobs.of(OTHERS["dropout"], **changes) for _ in range(2))
    _, whole = run(whole_job)
    attempt(job, 1, "step", 3, "killed")
    for folder in (Path(job.folder) / "checkpoints").iterdir():
        emptied(folder)
    state, last = run(replace(job, attempt=2))
    messages = [event.data["message"] for event in last if event.kind == "warning"]
    assert len(messages) == 2 and "update 2" in messages[0] and messages[1].endswith("The run begins anew.")
    assert state == "finished" and curve(last) == curve(whole)
    assert left_in(Path(job.folder)) == left_in(Path(whole_job.folder))


def test_a_checkpoint_that_cannot_be_written_does_not_end_a_training(jobs: MatrixJobs) -> None:
    job = jobs.of(OTHERS["dropout"], max_steps=3, save={"every": 1}, data={"eval_rows": 6})
    Path(job.folder).mkdir()
    (Path(job.folder) / "checkpoints").write_text("a file in the way")
    state, events = run(job)
    messages = [event.data["message"] for event in events if event.kind == "warning"]
    assert state == "finished" and len(messages) == 3 and "The checkpoint of step 1 could not be written" in messages[0]


def test_checkpoints_by_time_take_at_most_a_fiftieth_of_it() -> None:
    """Whatever one costs, and also where the first costs more than a slow disk lets expect."""
    from tuning.training.checkpoint import LEAST_SECONDS, Interval

    for cost, size in ((0.01, 10**6), (2.0, 10**9), (40.0, 4 * 10**9), (9.0, 10**6)):
        interval, now, spent, times = Interval(None, 100.0), 100.0, 0.0, list[float]()
        while now < 100.0 + 20_000:
            now += 0.7
            if interval.due(now, lambda size=size: size):
                now, spent = now + cost, spent + cost
                interval.record(now, cost)
                times.append(now)
        assert times and min(later - earlier for earlier, later in zip(times, times[1:], strict=False)) >= LEAST_SECONDS
        assert spent <= 0.02 * (now - 100.0) + (cost if size < 10**7 else 0), (cost, spent)
        assert spent > 0.01 * (now - 100.0) or len(times) > 600, "it is not shy either"
    fixed = Interval(5.0, 0.0)
    assert not fixed.due(4.9, lambda: 10**12) and fixed.due(5.0, lambda: 10**12)


def test_checkpoints_come_by_time_without_being_asked_for_by_count(jobs: MatrixJobs) -> None:
    job = jobs.of(OTHERS["dropout"], max_steps=3, save={"every_seconds": 1e-6}, data={"eval_rows": 6})
    _, events = run(job)
    assert [event.data["step"] for event in events if event.kind == "checkpoint"] == [1, 2, 3]
    assert len(list((Path(job.folder) / "checkpoints").iterdir())) == 2, "save.keep"
    never = jobs.of(OTHERS["dropout"], max_steps=3, data={"eval_rows": 6})
    assert not [event for event in run(never)[1] if event.kind == "checkpoint"], "within 30 seconds"


def test_tables_that_optimizer_states_share_are_written_each() -> None:
    """bitsandbytes keeps one table for the states of all weights."""
    from tuning.training.checkpoint import _separate_tensors

    table = torch.arange(8.0)
    separate = _separate_tensors({"0.qmap": table, "1.qmap": table, "1.half": table[4:], "step": 3})
    assert len({tensor.untyped_storage().data_ptr() for tensor in separate.values()}) == 3
    assert torch.equal(separate["1.qmap"], table) and torch.equal(separate["1.half"], table[4:])
