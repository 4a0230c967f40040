"""What a run has left that was stopped, failed or killed: it goes on where that works, and its weights can be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.quick_runs import SERVER, quick_job
from support.tiny_jobs import TinyJobs, series
from tuning.core.errors import RunError, SettingsError
from tuning.runs.events import Emitter, Event
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.runs.store import RunStore
from tuning.text.question import Question
from tuning.training.job import Commands

torch = pytest.importorskip("torch")
LORA = {"name": "lora", "r": 4}
QUESTION = Question(["the red dog"], max_new_tokens=4)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> TinyJobs:
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home")
    yield service
    service.close()


def until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stopped(service: RunService, given: dict[str, Any], step: int) -> str:
    run_id = service.start(given)
    until(lambda: service.run(run_id).step >= step)
    service.stop(run_id)
    assert service.wait(run_id, 60) == "cancelled"
    return run_id


class Killed(BaseException):
    pass


def killed(service: RunService, run_id: str, step: int) -> None:
    """Another attempt, whose process is killed behind this update."""
    from tuning.training.run import run_job

    row = service.run(run_id)
    job = replace(service._job_of(row), attempt=row.attempt + 1)

    def sink(event: Event) -> None:
        service.store.append(event)
        if event.kind == "step" and event.data["step"] == step:
            raise Killed

    emit = Emitter(run_id, job.attempt, sink)
    emit("queued")
    with pytest.raises(Killed):
        run_job(job, emit, Commands())
    service.store.flush()
    service.recover()
    assert service.run(run_id).state == "interrupted"


def result_of(service: RunService, run_id: str) -> dict[str, Any]:
    """The update that a run would go on from, and the forms there are of what it has left."""
    states = service.result_states(run_id)
    return states | {"forms": [form for form, of in states["forms"].items() if of["state"] != "none"]}


def test_a_stopped_run_goes_on_without_having_been_told_to_keep_anything(jobs: TinyJobs, service: RunService) -> None:
    run_id = stopped(service, jobs.settings(max_steps=100_000, method=LORA), 3)
    step = service.run(run_id).step
    result = result_of(service, run_id)
    assert result["go_on"] == step and {"trained", "merged"} <= set(result["forms"])
    assert service.resume_from_checkpoint(run_id) == step
    with pytest.raises(RunError, match="is queued|is running"):
        service.resume_from_checkpoint(run_id)
    until(lambda: service.run(run_id).step > step)
    service.stop(run_id)
    assert service.wait(run_id, 60) == "cancelled"
    steps = [event.data["step"] for event in service.store.events(run_id, "step") if event.attempt == 2]
    assert steps[0] == step + 1


def test_what_was_learned_before_a_kill_is_not_handed_out_as_the_result_of_after(
    jobs: TinyJobs, service: RunService
) -> None:
    from safetensors.torch import load_file

    run_id = stopped(service, jobs.settings(max_steps=100_000, method=LORA, save={"every": 2}), 3)
    first = service.result(run_id)
    step, before = service.run(run_id).step, load_file(first / "adapter_model.safetensors")
    killed(service, run_id, step + 3)
    newest = result_of(service, run_id)["go_on"]
    assert newest > step
    checkpoint = load_file(service.run_folder(run_id) / "checkpoints" / f"step-{newest:08d}" / "weights.safetensors")
    after = load_file(service.result(run_id) / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in checkpoint} == set(after)
    assert all(torch.equal(after[name.replace(".default", "")], weight) for name, weight in checkpoint.items())
    assert not all(torch.equal(before[name], after[name]) for name in after)
    with pytest.raises(RunError, match="no best weights: it was cut off"):
        service.result(run_id, "best")


def killed_at(service: RunService, given: dict[str, Any], step: int) -> str:
    """A run whose first attempt to train is killed behind this update, with no checkpoint written."""
    long = service.start(given | {"method": {"name": "full"}, "max_steps": 100_000})
    run_id = service.start(given)
    service.stop(run_id)  # it waits: what trains is the attempt that is killed
    service.stop(long)
    for each in (run_id, long):
        assert service.wait(each, 60) == "cancelled"
    killed(service, run_id, step)
    return run_id


def test_weights_of_the_best_evaluation_are_named_where_no_checkpoint_is_left(
    jobs: TinyJobs, service: RunService
) -> None:
    from safetensors.torch import load_file

    given = jobs.settings(max_steps=100, method=LORA, eval={"every": 2}, save={"every": 50})
    run_id = killed_at(service, given, 5)
    folder = service.run_folder(run_id)
    best = {"kind": "best", "step": 4}
    result = result_of(service, run_id)
    assert result["recovered_from"] == best and {"trained", "best", "merged", "best-merged"} == set(result["forms"])
    preview = service.preview(jobs.settings(max_steps=1, method=LORA) | {"model": f"run:{run_id}"})
    messages = [notice.message for notice in preview.plan.model.notices]
    assert any("are those of update 4, its best evaluation: the run was cut off before" in text for text in messages)
    assert service.ask(run_id, QUESTION)["recovered_from"] == best
    assert service.ask(run_id, QUESTION, weights="best")["recovered_from"] == best
    artifact = service.result(run_id)
    assert service.result(run_id, "best") == artifact
    stored, saved = load_file(folder / "best.safetensors"), load_file(artifact / "adapter_model.safetensors")
    assert all(torch.equal(saved[name.replace(".default", "")], weight) for name, weight in stored.items())
    sentence = (
        "The weights are those of update 4, its best evaluation, because the run was cut off before a checkpoint."
    )
    for form in ("trained", "merged", "best-merged"):
        card = (service.result(run_id, form) / "README.md").read_text("utf-8")
        assert "5 of 100 updates" in card and sentence in card, form


def test_a_result_of_before_a_second_kill_is_made_again_from_the_new_best_weights(
    jobs: TinyJobs, service: RunService
) -> None:
    prompts = {"name": "prompt_tuning"}
    run_id = killed_at(service, jobs.settings(max_steps=100, method=prompts, eval={"every": 2}, save={"every": 50}), 3)
    preview = service.preview(jobs.settings(max_steps=1, method=prompts) | {"model": f"run:{run_id}"})
    adapter, source = [notice.message for notice in preview.plan.model.notices]
    assert adapter.endswith("; it is brought back at Start.") and "of update 2, its best evaluation" in source
    assert "update 2, its best evaluation" in (service.result(run_id) / "README.md").read_text("utf-8")
    killed(service, run_id, 5)
    assert result_of(service, run_id)["recovered_from"] == {"kind": "best", "step": 4}
    assert "update 4, its best evaluation" in (service.result(run_id) / "README.md").read_text("utf-8")


def test_the_card_names_a_checkpoint_that_is_older_than_the_run(jobs: TinyJobs, service: RunService) -> None:
    given = jobs.settings(max_steps=100, method=LORA, eval={"every": 2}, save={"every": 3})
    run_id = killed_at(service, given, 5)
    assert result_of(service, run_id)["recovered_from"] == {"kind": "checkpoint", "step": 3}
    card = (service.result(run_id) / "README.md").read_text("utf-8")
    assert "The weights are those of update 3, its last checkpoint, because the run was cut off after it." in card


def test_a_killed_run_that_saved_nothing_has_no_weights_to_ask(jobs: TinyJobs, service: RunService) -> None:
    given = jobs.settings(max_steps=100, method=LORA, eval={"every": 50}, save={"every": 50})
    run_id = killed_at(service, given, 3)
    assert result_of(service, run_id)["recovered_from"] is None
    with pytest.raises(RunError, match="has no weights to ask: it ended before a checkpoint or an evaluation"):
        service.ask(run_id, QUESTION)
    with pytest.raises(RunError, match="nothing to download: it ended before anything was saved"):
        service.result(run_id)


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the loss of a call be no number, or raise."""
    from tuning.training import loop

    real, calls = loop.sum_loss, []

    def break_it(call: int, error: Exception | None = None) -> None:
        def broken(logits: Any, batch: Any) -> Any:
            calls.append(1)
            if len(calls) > call and error is not None:
                raise error
            return real(logits, batch) * (float("nan") if len(calls) > call else 1.0)

        monkeypatch.setattr(loop, "sum_loss", broken)

    return break_it


def test_a_failed_run_offers_the_weights_that_it_says_it_kept(
    jobs: TinyJobs, service: RunService, fails_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(6)  # two micro-batches an update: in update 4
    run_id = service.start(jobs.settings(max_steps=6, method=LORA, eval={"every": 1}))
    assert service.wait(run_id, 60) == "failed"
    assert "weights of update 3 are kept" in (service.run(run_id).message or "")
    result = result_of(service, run_id)
    assert result["go_on"] == 3 and {"trained", "best", "merged", "best-merged"} == set(result["forms"])
    assert (service.result(run_id) / "adapter_model.safetensors").is_file()
    (end,) = service.store.events(run_id, "failed")
    assert end.data["best"]["step"] <= 3 and end.data["kept_step"] == 3
    assert service.preview(jobs.settings(max_steps=1) | {"model": f"run:{run_id}"}).plan.model.source == "run"
    monkeypatch.undo()
    assert service.resume_from_checkpoint(run_id) == 3
    assert service.wait(run_id, 60) == "finished"
    assert series(service.store.events(run_id), "step") == [1, 2, 3, 4, 5, 6]


def test_a_run_that_failed_of_something_else_goes_on_too(
    jobs: TinyJobs, service: RunService, fails_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(5, RuntimeError("a card fell off the bus"))  # in the second micro-batch of update 3
    run_id = service.start(jobs.settings(max_steps=4, method=LORA))
    assert service.wait(run_id, 60) == "failed"
    assert result_of(service, run_id)["go_on"] == 2 and "trained" in result_of(service, run_id)["forms"]
    monkeypatch.undo()
    assert (service.result(run_id) / "adapter_model.safetensors").is_file(), "brought back from its checkpoint"
    assert service.resume_from_checkpoint(run_id) == 2
    assert service.wait(run_id, 60) == "finished"


def test_a_run_that_failed_before_anything_was_kept_does_not_go_on(
    jobs: TinyJobs, service: RunService, fails_at: Any
) -> None:
    fails_at(0, RuntimeError("at once"))
    run_id = service.start(jobs.settings(max_steps=4, method=LORA))
    assert service.wait(run_id, 60) == "failed"
    assert result_of(service, run_id) == {"go_on": None, "recovered_from": None, "forms": []}
    with pytest.raises(RunError, match="left no checkpoint"):
        service.resume_from_checkpoint(run_id)


def test_a_run_without_a_checkpoint_begins_anew(jobs: TinyJobs, service: RunService) -> None:
    long = service.start(jobs.settings(max_steps=100_000))
    waiting = service.start(jobs.settings(max_steps=2, method=LORA))
    service.stop(waiting)
    service.stop(long)
    assert service.wait(waiting, 60) == "cancelled" and result_of(service, waiting) == {
        "go_on": 0,
        "recovered_from": None,
        "forms": [],
    }
    assert service.wait(long, 60) == "cancelled"
    assert service.resume_from_checkpoint(waiting) == 0
    assert service.wait(waiting, 60) == "finished"
    assert series(service.store.events(waiting), "step") == [1, 2]


def test_the_last_and_the_best_weights_are_asked_apart(jobs: TinyJobs, service: RunService) -> None:
    """Eight rows are soon learned by heart: the best answer otherwise than the last, and as they were measured."""
    hot = {"optimizer": {"learning_rate": 0.3}, "seed": 1, "schedule": {"name": "constant"}, "data": {"train_rows": 8}}
    run_id = service.start(jobs.settings(max_steps=16, method=LORA, eval={"every": 1}, **hot))
    assert service.wait(run_id, 60) == "finished"
    best = service.store.events(run_id, "finished")[0].data["best"]["step"]
    assert best < 12
    last_folder, best_folder = service.result(run_id), service.result(run_id, "best")
    answers = {which: service.ask(run_id, QUESTION, weights=which)["trained"] for which in ("last", "best")}
    assert answers["last"] == service.ask(run_id, QUESTION)["trained"] and last_folder != best_folder
    from tuning.settings.schema import Settings
    from tuning.training.compare import BaseAndTuned

    row = service.run(run_id)
    settings = Settings.from_dict(row.settings)
    question = replace(QUESTION, chat=row.chat)
    for which, folder in (("last", last_folder), ("best", best_folder)):
        models = BaseAndTuned(folder.parent, row.plan["model"]["path"], settings)
        assert models.ask(question)["trained"] == answers[which], which
    with pytest.raises(SettingsError, match="last or best"):
        service.ask(run_id, QUESTION, weights="newest")


def test_a_run_that_was_deleted_and_killed_comes_back_as_interrupted(tmp_path: Path) -> None:
    """Its row is hidden when the next server looks for what was left behind."""
    first = RunStore(tmp_path)
    first.create_run("r1", "mine", {}, {})
    Emitter("r1", 1, first.append)("started", total_steps=5)
    first.delete("r1")
    first.close()  # its locks go, as those of a killed process
    second = RunStore(tmp_path)
    try:
        assert second.mark_interrupted() == ["r1"]
        second.undelete("r1")
        assert [row.state for row in second.runs()] == ["interrupted"]
    finally:
        second.close()


def test_the_other_server_on_a_home_notices_a_kill(tmp_path: Path) -> None:
    """Its run is interrupted and its queue taken up, without a restart."""
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(tests).parent), tests))}
    command = [sys.executable, "-c", SERVER, str(tmp_path), tests]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None
    other.stdout.readline()  # it runs
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    service.recover()
    service.watch(0.1)
    try:
        until(lambda: len(service.runs()) == 2)
        waiting, running = service.runs()  # the newest first
        time.sleep(0.5)
        assert service.run(running.run_id).state == "running" and service.run(waiting.run_id).state == "queued"
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        until(lambda: service.run(running.run_id).state == "interrupted")
        until(lambda: service.run(waiting.run_id).state == "finished")
    finally:
        service.close()
        other.kill()
        other.wait()
