"""A run that is killed, stopped and goes on is the run that nobody disturbed: curve, best, patience, card, weights."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from methods_world import CLASSES, MethodsWorld, Row
from test_methods_matrix import MATRIX
from training_world import run

from tuning.events import Event
from tuning.job import Commands, Job
from tuning.methods import METHODS
from tuning.settings import choices

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
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MethodsWorld]:
    world = MethodsWorld(tmp_path_factory.mktemp("world"))
    run(world.of(OTHERS["dropout"], max_steps=1))
    gc.collect()
    gc.freeze()  # what is imported by now is not looked through at every measured update of every run below
    yield world
    gc.unfreeze()


def killed_behind(kind: str, step: int) -> Callable[[Event], None]:
    def kill(event: Event) -> None:
        if event.kind == kind and event.data["step"] == step:
            raise Killed

    return kill


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
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        if event.kind in ("step", "eval"):
            point = {key: event.data[key] for key in NUMBERS if key in event.data}
            assert found.setdefault((event.kind, event.data["step"]), point) == point
    return found


def left_in(folder: Path) -> dict[str, bytes | str]:
    """All weights and cards that a run has left, cards without the time it took."""
    found: dict[str, bytes | str] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors" and not name.startswith("checkpoints"):
            found[name] = file.read_bytes()
        if file.name == "README.md":
            found[name] = re.sub(r" updates in \d+ s", " updates", file.read_text("utf-8"))
    return found


def same_end(parts: list[Event], whole: list[Event]) -> None:
    wanted, found = ({key: end.data[key] for key in end.data if key != "seconds"} for end in (whole[-1], parts[-1]))
    assert (parts[-1].kind, found) == (whole[-1].kind, wanted)
    assert whole[-1].kind == "finished"


def test_every_method_and_optimizer_is_among_the_cases() -> None:
    assert {row.method["name"] for row in CASES.values()} == {one.name for one in METHODS if one.updates}
    used = {(row.more or {}).get("optimizer", {}).get("name") for row in CASES.values()}
    assert set(choices("optimizer.name")) <= used


@pytest.mark.parametrize("row", CASES.values(), ids=CASES)
def test_killed_once_and_stopped_once_it_is_the_undisturbed_run(world: MethodsWorld, row: Row) -> None:
    changes = {"max_steps": 6, "eval": {"every": 2}, "save": {"every": 3}, "data": {"eval_rows": 6}}
    whole_job, job = world.of(row, **changes), world.of(row, **changes)
    state, whole = run(whole_job)
    assert state == "finished", whole[-1].data
    parts = attempt(job, 1, "step", 4, "killed")
    parts += attempt(job, 2, "step", 5, "stopped")
    state, last = run(replace(job, attempt=3))
    assert [event.data["step"] for event in last if event.kind == "step"] == [6]
    assert curve(parts + last) == curve(whole)
    same_end(last, whole)
    assert left_in(Path(job.folder)) == left_in(Path(whole_job.folder))
