"""The command line as other programs use it: JSON lines, exit codes, what is left in --out and in --home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tuning.runs.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"max_steps": 3, "data": {"train_rows": 24, "eval_rows": 8}}
LONG = {"max_steps": 5000, "eval": {"every": None}}


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "tuning", *arguments], text=True, env=environment, **pipes)


def tuning(*arguments: str, given: object) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(given if isinstance(given, str) else json.dumps(given), timeout=180)
    return process.returncode, out, err


@pytest.mark.slow
def test_run_prints_events_and_leaves_what_it_learned(tmp_path):
    code, out, err = tuning("run", "-", "--out", str(tmp_path / "here"), given=SMALL)
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["seq"] for event in events] == list(range(len(events)))
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3] and events[-1]["kind"] == "finished"
    assert {"loss", "learning_rate", "grad_norm", "trained_tokens", "input_tokens", "seconds"} <= steps[0].keys()
    here = tmp_path / "here"
    assert (here / "events.jsonl").read_text("utf-8") == out
    assert json.loads((here / "settings.json").read_text("utf-8"))["max_steps"] == 3
    assert (here / "adapter" / "adapter_model.safetensors").is_file()
    assert "Traceback" not in err and "USDT" not in err
    (here / "mine.txt").write_text("stays")
    code, _, err = tuning("run", "-", "--out", str(here), given={**SMALL, "method": {"name": "full"}})
    assert code == 0, err
    assert {path.name for path in here.iterdir() if path.is_dir()} >= {"model"} and not (here / "adapter").exists()
    assert (here / "mine.txt").read_text() == "stays"


@pytest.mark.parametrize("where", ["--out", "--home"])
def test_a_place_that_is_a_file_is_refused(tmp_path, where):
    (tmp_path / "file").write_text("")
    code, out, err = tuning("run", "-", where, str(tmp_path / "file"), given=SMALL)
    assert code == 2 and "Traceback" not in err
    assert [problem["field"] for problem in json.loads(out)["problems"]] == [where.removeprefix("--")]


def test_a_number_without_end_is_reported_in_words():
    def strict(word):
        raise AssertionError(word)

    code, out, _ = tuning("estimate", "-", given='{"max_steps": 1e400}')
    assert code == 2
    assert json.loads(out, parse_constant=strict)["problems"][0]["value"] == "inf"


@pytest.mark.slow
def test_run_in_a_home_can_be_seen_there(tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    code, printed, err = tuning("run", "-", "--home", str(home), "--out", str(out), given=SMALL)
    assert code == 0, err
    events = [json.loads(line) for line in printed.splitlines()]
    store = RunStore(home)
    try:
        (row,) = store.runs()
        assert row.state == "finished" and row.step == 3
        assert [event.kind for event in store.events(row.run_id)] == [event["kind"] for event in events]
    finally:
        store.close()
    stored = home / "runs" / row.run_id / "adapter" / "adapter_model.safetensors"
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == stored.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--out", "--home"])
def test_an_interrupt_ends_it_as_cancelled_with_its_work_kept(tmp_path, where):
    process = start("run", "-", where, str(tmp_path / "place"))
    process.stdin.write(json.dumps(LONG))
    process.stdin.close()
    for line in process.stdout:
        if json.loads(line)["kind"] == "step":
            break
    process.send_signal(signal.SIGINT)
    last = [json.loads(line) for line in process.stdout][-1]
    assert process.wait(60) == 130 and last["kind"] == "cancelled"
    assert list((tmp_path / "place").rglob("adapter_model.safetensors"))


def test_a_refusal_lists_all_problems_and_makes_nothing(tmp_path):
    wrong = {"micro_batch_size": 0, "optimizer": {"learning_rate": "abc"}, "colour": 3}
    for verb, extra in (("estimate", ()), ("run", ("--out", str(tmp_path / "x"), "--home", str(tmp_path / "y")))):
        code, out, err = tuning(verb, "-", *extra, given=wrong)
        problems = json.loads(out)["problems"]
        assert code == 2 and {"micro_batch_size", "optimizer.learning_rate", "colour"} <= {p["field"] for p in problems}
        assert all({"field", "value", "limit", "message"} <= problem.keys() for problem in problems)
        assert "Traceback" not in err and "learning_rate" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model": "/no/such/folder"}', '{"seed": NaN}'])
def test_what_is_not_settings_is_reported(text):
    code, out, err = tuning("estimate", "-", given=text)
    assert code == 2 and json.loads(out)["problems"] and "Traceback" not in err


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_with_its_step(tmp_path):
    wild = {"optimizer": {"name": "sgd", "learning_rate": 10.0, "max_grad_norm": None}, "method": {"name": "full"}}
    code, out, err = tuning("run", "-", "--out", str(tmp_path), given={**wild, "max_steps": 200})
    last = json.loads(out.splitlines()[-1])
    assert code == 1 and last["kind"] == "failed" and last["step"] >= 1 and "finite" in last["message"]
    assert (tmp_path / "model" / "model.safetensors").is_file(), "the last good weights are kept"
    assert "Traceback" not in err
