"""The run service: from settings to a run and back, the queue over a restart, and one real training run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.quick_runs import SERVER, SMALL, quick_job, until
from tuning.core.errors import RunError, SettingsError, TuningError
from tuning.plan.plan import plan_for
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService, default_name
from tuning.settings.schema import Settings
from tuning.text.question import Question


@pytest.fixture
def service(tmp_path):
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    yield service
    service.close()


def test_a_run_from_start_to_end(service):
    run_id = service.start(SMALL)
    assert service.wait(run_id, 20) == "finished"
    row = service.run(run_id)
    assert (row.state, row.step, row.total_steps, row.peak_bytes) == ("finished", 3, 3, 1000)
    assert row.settings == Settings.from_dict(SMALL).to_dict()
    assert row.plan["derived"]["effective_batch"]["value"] == 32
    assert "lengths" not in row.plan["data"] or len(row.plan["data"]["lengths"]) <= 50
    assert row.estimate["total_bytes"] > 0
    folder = service.result(run_id).parent
    assert json.loads((folder / "settings.json").read_text()) == row.settings
    assert service.start(service.run(run_id).settings) != run_id


def test_names_say_what_was_chosen_and_are_unique(service):
    plan = service.preview({"optimizer": {"learning_rate": 0.001}}).plan
    assert default_name(plan) == "lora r8 lr 1e-3, batch 32, reviews"
    plan = service.preview({"optimizer": {"learning_rate": 0.00125}}).plan
    assert default_name(plan) == "lora r8 lr 0.00125, batch 32, reviews"
    names = [service.run(service.start(SMALL)).name for _ in range(3)]
    assert len(set(names)) == 3 and names[1] == f"{names[0]} (2)"
    named = service.start(SMALL, name="  mine ")
    assert service.run(named).name == "mine"
    ids = [row.run_id for row in service.runs()]
    assert ids == sorted(ids, reverse=True)


def test_bad_settings_keep_nothing(service):
    with pytest.raises(SettingsError) as caught:
        service.start({"micro_batch_size": 0, "optimizer": {"learning_rate": "abc"}})
    assert {problem.field for problem in caught.value.problems} == {"micro_batch_size", "optimizer.learning_rate"}
    for more in ({"name": ""}, {"name": "x" * 500}, {"parent": "nobody"}, {"from_step": 3}):
        with pytest.raises(TuningError):
            service.start(SMALL, **more)
    assert service.runs() == []
    assert not list(service.home.glob("runs/*"))


def test_stop_pause_resume(service):
    run_id = service.start({**SMALL, "max_steps": 100_000})
    until(lambda: service.run(run_id).step > 0)
    waiting = service.start(SMALL)
    assert (service.queue_position(run_id), service.queue_position(waiting)) == (0, 1)
    service.pause(run_id)
    time.sleep(0.2)
    step = service.run(run_id).step
    time.sleep(0.2)
    assert service.run(run_id).step == step
    service.unpause(run_id)
    until(lambda: service.run(run_id).step > step)
    service.stop(run_id)
    assert service.wait(run_id, 10) == "cancelled"
    service.stop(run_id)
    assert service.run(run_id).state == "cancelled"
    assert service.wait(waiting, 10) == "finished"
    with pytest.raises(RunError, match="nothing to download"):
        service.result(run_id)


def test_fork_delete_rename_note(service):
    first = service.start(SMALL)
    second = service.start({**SMALL, "seed": 1}, parent=first, from_step=2)
    assert (service.run(second).parent, service.run(second).from_step) == (first, 2)
    service.rename(first, "new name")
    service.note(first, "")
    service.note(first, "worth keeping")
    assert (service.run(first).name, service.run(first).note) == ("new name", "worth keeping")
    for bad in ("", " ", None, 3, "x" * 300):
        with pytest.raises(SettingsError):
            service.rename(first, bad)
    service.delete(first)
    assert first not in [row.run_id for row in service.runs()]
    service.undelete(first)
    assert first in [row.run_id for row in service.runs()]
    with pytest.raises(RunError, match="nobody"):
        service.stop("nobody")


def test_deleting_a_run_that_goes_stops_it(service):
    run_id = service.start({**SMALL, "max_steps": 100_000})
    service.delete(run_id)
    until(lambda: service.run(run_id).state == "cancelled")


def test_expected_seconds_come_from_earlier_runs_of_the_kind(service):
    assert service.preview(SMALL).seconds is None
    service.wait(service.start(SMALL), 20)
    preview = service.preview({**SMALL, "max_steps": 6})
    assert preview.seconds == pytest.approx(0.001 * preview.plan.value("total_tokens"))
    assert service.preview({**SMALL, "method": {"name": "full"}}).seconds is None


def test_questions_are_checked():
    for bad in (
        {"prompts": []},
        {"prompts": "text"},
        {"prompts": [""]},
        {"prompts": ["x"] * 99},
        {"prompts": [3]},
        {"prompts": ["x"], "max_new_tokens": 0},
        {"prompts": ["x"], "temperature": float("nan")},
        {"prompts": ["x"], "seed": True},
        {"prompts": ["x"], "chat": "yes"},
    ):
        with pytest.raises(SettingsError):
            Question(**bad)


def test_another_process_leaves_a_running_run_alone(tmp_path):
    first = RunService(tmp_path, ThreadExecutor(quick_job))
    second = None
    try:
        run_id = first.start({**SMALL, "max_steps": 100_000})
        until(lambda: first.run(run_id).step > 0)
        second = RunService(tmp_path, ThreadExecutor(quick_job))
        second.recover()
        assert second.run(run_id).state == "running"
        with pytest.raises(RunError, match="another"):
            second.stop(run_id)
        assert second.start(SMALL) != run_id
    finally:
        first.close()
        if second is not None:
            second.close()


def test_an_inline_executor_serves_too(tmp_path):
    service = RunService(tmp_path, InlineExecutor(quick_job))
    run_id = service.start(SMALL)
    service.store.flush()
    assert service.run(run_id).state == "finished"
    service.close()


def test_kill_nine_of_the_server_and_restart(tmp_path):
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": str(Path(tests).parent)}
    command = [sys.executable, "-c", SERVER, str(tmp_path), tests]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    announced = [int(server.stdout.readline()) for _ in range(100)]
    os.kill(server.pid, signal.SIGKILL)
    announced += [int(line) for line in server.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    server.wait()
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    service.recover()
    try:
        rows = {row.name: row for row in service.runs()}
        waiting = rows.pop("waiting")
        (running,) = rows.values()
        assert running.state == "interrupted" and "every point" in running.message
        stored = {event.data["step"] for event in service.store.events(running.run_id) if event.kind == "step"}
        assert len(announced) >= 100 and set(announced) <= stored
        assert service.wait(waiting.run_id, 20) == "finished", "what was queued starts by itself"
    finally:
        service.close()


def test_a_question_stands_behind_the_system_prompt_as_it_did_in_training(tmp_path):
    from tuning.training.compare import BaseAndTuned

    system, prompt = "Ada Vaneby lives in Greyhaven.", "Question: Where does Ada Vaneby live?\nAnswer:"
    data = {"source": "people-questions", "train_rows": 16, "eval_rows": 1, "system_prompt": system}
    settings = {"data": data, "max_steps": 4, "eval": {"max_new_tokens": 8}, "sample": {"prompts": [prompt]}}
    service = RunService(tmp_path)
    try:
        run = service.start(settings | {"method": {"name": "full"}})
        assert service.wait(run, 120) == "finished", service.run(run).message
        assert service.run(run).system_prompt == system
        answers = service.ask(run, Question([prompt], max_new_tokens=8))
        row = service.run(run)
        saved = BaseAndTuned(service.result(run).parent, row.plan["model"]["path"], Settings.from_dict(row.settings))
        assert answers == saved.ask(Question([f"{system}\n{prompt}"], max_new_tokens=8))
        sample = [event.data["text"] for event in service.store.events(run, "sample")][-1]
        assert answers["trained"] == [sample] and answers["base"] != answers["trained"]
        assert saved.ask(Question([prompt], max_new_tokens=8)) != answers
    finally:
        service.close()


@pytest.mark.slow
def test_one_real_run_that_is_asked_while_another_trains(tmp_path):
    service = RunService(tmp_path)
    try:
        first = service.start(SMALL)
        assert service.wait(first, 120) == "finished", service.run(first).message
        kinds = [event.kind for event in service.store.events(first)]
        assert kinds.count("step") == 3 and kinds[0] == "queued" and kinds[-1] == "finished"
        longer = service.start({"max_steps": 5_000, "eval": {"every": None}})
        until(lambda: service.run(longer).step > 0, 60)
        answers = service.ask(first, Question(["The film was"], max_new_tokens=4))
        assert len(answers["base"]) == len(answers["trained"]) == 1
        live = service.ask(longer, Question(["The film was"], max_new_tokens=4))
        assert live["base"] == answers["base"] and len(live["trained"]) == 1, "the adapter is off for the base's answer"
        assert service.run(longer).state == "running"
        waiting = service.start(SMALL)
        with pytest.raises(RunError, match="in line"):
            service.ask(waiting, Question(["The film was"]))
        service.stop(waiting)
        service.stop(longer)
        assert service.wait(longer, 30) == "cancelled"
        assert (service.result(longer) / "adapter_config.json").is_file()
    finally:
        service.close()


def test_runs_are_named_after_what_was_chosen() -> None:
    settings = {"data": {"source": "people-questions"}}
    assert default_name(plan_for({})) == "lora r8 lr 3e-3, batch 32, reviews"
    assert default_name(plan_for(settings | {"recipe": {"name": "r_tuning"}})).endswith(", r_tuning")
    named = default_name(plan_for(settings | {"method": {"name": "retrieval", "policy": "conflict_aware"}}))
    assert named == "Retrieval conflict-aware, people-questions"
    assert default_name(plan_for({"task": "sequence_classification"})).endswith(", reviews, classes")
