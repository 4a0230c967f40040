"""What a run leaves: merged, brought back after a crash, the base of the next run, a command line, a card."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_jobs import TinyJobs
from tuning.core.errors import RunError, TuningError
from tuning.runs.service import RunService
from tuning.settings.command_line import changed_only, command_line
from tuning.settings.schema import Settings

ROOT = Path(__file__).resolve().parents[2]
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path):
    """A home of its own for each test: what one makes of a run must not be there for the next."""
    service = RunService(tmp_path / "home")
    yield service
    service.close()


@pytest.fixture
def trained(jobs, service):
    """A LoRA run with dropout 0 that has moved the model."""
    method = {"name": "lora", "r": 4}
    run_id = service.start(jobs.settings(method=method, max_steps=20, optimizer={"learning_rate": 0.02}), name="first")
    assert service.wait(run_id, 120) == "finished", service.run(run_id).message
    return run_id


def evals(service, run_id):
    return [event.data for event in service.store.events(run_id, "eval")]


def test_merged_says_what_base_and_adapter_say(jobs, service, trained):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = service.result(trained, "merged")
    assert (merged / "tokenizer.json").is_file() and not (merged / "adapter_config.json").exists()
    ids = torch.tensor([[1, 5, 6, 7, 8, 9]])
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(merged).eval()(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(jobs.model).eval()
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, service.result(trained)).eval()(input_ids=ids).logits
    assert float((whole - adapted).abs().max()) < 1e-4 < 0.05 < float((whole - plain).abs().max())
    assert service.result(trained, "merged").stat().st_mtime == merged.stat().st_mtime, "made once"


def test_a_form_that_is_not_known_is_refused(service, trained):
    with pytest.raises(RunError, match="no 'gold'"):
        service.result(trained, "gold")


def test_the_card_tells_base_data_curve_and_settings(service, trained):
    text = (service.result(trained) / "README.md").read_text(encoding="utf-8")
    fingerprint = service.run(trained).plan["data"]["fingerprint"]
    last = evals(service, trained)[-1]
    versions = f"torch {torch.__version__}"
    for part in (fingerprint, "LoRA", "4 x 2", f"{last['loss']:.4g}", "PeftModel", versions, "seed"):
        assert part in text, part
    settings = json.loads(text.partition("```json\n")[2].partition("```")[0])
    expected = service.run(trained).settings
    expected["data"]["source"], expected["model"] = "./rows.jsonl", "./base"  # no path of this machine
    assert settings == expected


CRASH = """
import sys, json
from tuning.runs.service import RunService
service = RunService(sys.argv[1])
run = service.start(json.loads(sys.argv[2]))
print(run, flush=True)
while service.run(run).step < 7:
    service.wait(run, 0.05)
print("seven", flush=True)
service.wait(run)
"""


@pytest.mark.slow
def test_an_interrupted_run_gives_its_last_checkpoint(jobs, tmp_path):
    changes = {"max_steps": 100_000, "save": {"every": 3}, "eval": {"every": None}}
    settings = jobs.settings(method={"name": "lora", "r": 4}, **changes)
    command = [sys.executable, "-c", CRASH, str(tmp_path), json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline().strip() == "seven"
    process.send_signal(signal.SIGKILL)
    process.wait()
    service = RunService(tmp_path)
    try:
        service.recover()
        assert service.run(run_id).state == "interrupted"
        checkpoints = sorted((tmp_path / "runs" / run_id / "checkpoints").glob("step-????????"))
        from safetensors.torch import load_file

        saved = load_file(checkpoints[-1] / "weights.safetensors")
        adapter = load_file(service.result(run_id) / "adapter_model.safetensors")
        assert len(saved) == len(adapter) > 0
        for name, weight in adapter.items():
            match = [value for other, value in saved.items() if other.replace(".default", "") == name]
            assert len(match) == 1 and torch.equal(match[0], weight), name
        service.resume_from_checkpoint(run_id)
        begin = int(checkpoints[-1].name.removeprefix("step-"))
        while service.run(run_id).step <= begin + 2:
            assert service.wait(run_id, 0.05) is None, service.run(run_id).message
        service.stop(run_id)
        assert service.wait(run_id, 60) == "cancelled"
        second = [event.data["step"] for event in service.store.events(run_id, "step") if event.attempt == 2]
        assert second[0] == begin + 1
    finally:
        service.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": {"name": "full"}},
        {"num_epochs": 2.5},
        {"data": {"columns": {"prompt": "it's"}}, "seed": 7},
        {"method": {"name": "lora", "r": 16}, "optimizer": {"learning_rate": 1e-3, "betas": [0.9, 0.95]}},
        {"task": "sequence_classification", "eval": {"metrics": ["accuracy"]}, "save": {"best_by": "accuracy"}},
        {"sample": {"prompts": ['Where\'s "it"?\n€'], "every": 5}},
    ],
)
def test_the_command_line_gives_the_same_settings(changes):
    plain = Settings.from_dict(changes).to_dict()
    assert Settings.from_dict(changed_only(plain)).to_dict() == plain
    echo, text, pipe, *rest = shlex.split(command_line("r1", plain, Path("/home/of")))
    assert (echo, pipe) == ("echo", "|") and Settings.from_dict(json.loads(text)).to_dict() == plain
    assert rest == ["python", "-m", "tuning", "run", "-", "--out", "r1"]
    assert len(json.dumps(changed_only(plain))) < 200


def test_nothing_is_left_of_a_run_that_never_began(jobs, service):
    long = service.start(jobs.settings(max_steps=100_000))
    waiting = service.start(jobs.settings())
    service.stop(waiting)
    service.stop(long)
    assert service.wait(waiting, 60) == "cancelled"
    with pytest.raises(TuningError, match="nothing"):
        service.result(waiting)
    assert service.wait(long, 60) == "cancelled"
    states = service.result_states(waiting)
    assert states["go_on"] == 0, "it begins anew"
    assert {form["state"] for form in states["forms"].values()} == {"none"}
