"""What a run has learned is what the next one starts from: its first evaluation is the last of its parent."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from support.method_matrix import BERT, CLASSES, LLAMA, TIED, MatrixJobs, Row
from support.tiers import one_of_each
from tuning.core.errors import ModelError, RunError, SettingsError, TuningError
from tuning.methods import METHODS
from tuning.runs.service import RunService

torch = pytest.importorskip("torch")

ROWS = [
    Row(method={"name": "full"}),
    Row(method={"name": "full"}, task=CLASSES),
    Row(method={"name": "partial", "head": True}, model=TIED),
    Row(method={"name": "galore", "rank": 4}),
    Row(method={"name": "lora", "r": 4, "dora": True}),
    Row(method={"name": "lora", "r": 4, "init": "pissa"}),
    Row(method={"name": "lora", "r": 4}, task=CLASSES, model=BERT),
    Row(method={"name": "qlora", "r": 4}),
    Row(method={"name": "qlora", "r": 4}, task=CLASSES),
    Row(method={"name": "ia3"}),
    Row(method={"name": "feature_extraction"}, model=TIED),
    Row(method={"name": "feature_extraction", "random_body": True}),
    Row(method={"name": "feature_extraction", "head": "kan"}, task=CLASSES),
    Row(method={"name": "feature_extraction", "head": "mlp"}, task=CLASSES, model=BERT),
    Row(method={"name": "feature_extraction", "head": "linear"}, task=CLASSES),
    Row(method={"name": "adapter"}),
    Row(method={"name": "adapter"}, task=CLASSES, model=BERT),
    Row(method={"name": "prompt_tuning"}),
    Row(method={"name": "prefix_tuning"}),
    Row(method={"name": "prefix_tuning"}, task=CLASSES),
]
NOT_TRAINED_ON = {"p_tuning"}
MERGED = {"full", "partial", "galore", "lora", "qlora", "ia3", "feature_extraction"}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> MatrixJobs:
    return MatrixJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    """A home of its own for each test: nobody has merged anything in it before."""
    service = RunService(tmp_path / "home")
    yield service
    service.close()


def settings(jobs: MatrixJobs, row: Row, **changes: Any) -> dict[str, Any]:
    plain = {"task": row.task, "model": str(jobs.models[row.model]), "method": row.method}
    plain |= {"optimizer": {"learning_rate": None}, "max_steps": 8, "eval": {"every": 4}}
    return jobs.settings(**(plain | changes))


def ran(service: RunService, given: dict[str, Any], name: str | None = None) -> str:
    run_id = service.start(given, name=name)
    assert service.wait(run_id, 120) == "finished", service.run(run_id).message
    return run_id


def evals(service: RunService, run_id: str) -> list[float]:
    return [event.data["loss"] for event in service.store.events(run_id, "eval")]


def first_of_next(service: RunService, jobs: MatrixJobs, row: Row, parent: str, **changes: Any) -> float:
    given = settings(jobs, row, max_steps=1, **changes) | {"model": f"run:{parent}"}
    return evals(service, ran(service, given))[0]


def test_the_rows_are_all_methods_that_train() -> None:
    named = {row.method["name"] for row in ROWS} | NOT_TRAINED_ON
    assert named == {method.name for method in METHODS if method.updates}


@pytest.mark.parametrize("row", one_of_each(ROWS, lambda row: row.method["name"] == "lora"), ids=lambda row: row.id)
def test_the_next_run_begins_where_this_one_ended(jobs: MatrixJobs, service: RunService, row: Row) -> None:
    parent = ran(service, settings(jobs, row))
    first, *_, last = evals(service, parent)
    assert abs(first - last) > 1e-3, "the parent has moved"
    assert first_of_next(service, jobs, row, parent) == pytest.approx(last, abs=1e-4)
    if row.method["name"] in MERGED and row.method.get("head") not in ("kan", "mlp", "linear"):
        first_loss = first_of_next(service, jobs, row, parent, method={"name": "full"})
        assert first_loss == pytest.approx(last, abs=1e-4), "full fine-tuning begins there too"
        return
    before = len(service.runs())
    with pytest.raises(ModelError, match="cannot be merged.*train it on with method"):
        service.start(settings(jobs, row, method={"name": "full"}) | {"model": f"run:{parent}"})
    assert len(service.runs()) == before


def test_p_tuning_is_refused_before_start_with_the_reason(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "p_tuning"})
    parent = ran(service, settings(jobs, row))
    with pytest.raises(ModelError, match="only what came out was saved"):
        service.preview(settings(jobs, row) | {"model": f"run:{parent}"})


def test_an_adapter_of_another_shape_names_the_setting_that_mends_it(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "adapter", "bottleneck": 8})
    parent = ran(service, settings(jobs, row, max_steps=1))
    wider = settings(jobs, row, method={"name": "adapter", "bottleneck": 16}) | {"model": f"run:{parent}"}
    with pytest.raises(ModelError, match=r"set method\.bottleneck to 8"):
        service.preview(wider)


def test_a_head_is_trained_on_only_with_its_own_classes(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "adapter"}, task=CLASSES, model=BERT)
    parent = ran(service, settings(jobs, row, max_steps=1))
    names = {"columns": {"text": "text", "label": "label"}, "label_names": ["yes", "no"]}
    with pytest.raises(SettingsError, match="tells no, yes apart"):
        service.preview(settings(jobs, row, data=names) | {"model": f"run:{parent}"})


def test_a_preview_merges_nothing_and_says_what_start_will_do(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "lora", "r": 4})
    parent = ran(service, settings(jobs, row), name="first")
    given = settings(jobs, row, max_steps=1) | {"model": f"run:{parent}"}
    plan = service.preview(given).plan
    assert not (service.run_folder(parent) / "merged").exists()
    messages = [notice.message for notice in plan.notices if notice.field == "model"]
    assert messages == ["the result of first is merged into its base model at Start."]
    assert plan.model.title == "the result of first"
    child = ran(service, given)
    assert (service.run_folder(parent) / "merged" / "model.safetensors").is_file()
    stored = service.run(child)
    assert stored.plan["model"]["path"] == str(service.run_folder(parent) / "merged")
    assert (stored.parent, stored.settings["model"]) == (parent, f"run:{parent}")
    assert stored.plan["model"]["parent"]["path"] == str(jobs.models[LLAMA])
    assert not [notice for notice in stored.plan["notices"] if notice["field"] == "model"], "it is made now"


def test_the_parameters_before_merging_are_those_after_it(jobs: MatrixJobs, service: RunService) -> None:
    """An output layer trained apart from tied embeddings makes the merged model larger than the base."""
    row = Row(method={"name": "feature_extraction"}, model=TIED)
    parent = ran(service, settings(jobs, row, max_steps=1))
    given = settings(jobs, row, method={"name": "full"}) | {"model": f"run:{parent}"}
    before = service.preview(given).plan
    service.result(parent, "merged")
    after = service.preview(given).plan
    assert before.value("total_parameters") == after.value("total_parameters")
    assert after.model.shape.tied is False


def test_qlora_on_a_merged_result_tells_that_it_rounds_again(jobs: MatrixJobs, service: RunService) -> None:
    parent = ran(service, settings(jobs, Row(method={"name": "lora", "r": 4}), max_steps=1), name="first")
    given = settings(jobs, Row(method={"name": "qlora", "r": 4})) | {"model": f"run:{parent}"}
    assert any(
        "rounds the result of first to 4 bits" in notice.message for notice in service.preview(given).plan.notices
    )


@pytest.mark.slow
def test_the_best_weights_can_be_the_base_too(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "lora", "r": 4})
    parent = ran(service, settings(jobs, row, optimizer={"learning_rate": 0.5}, data={"train_rows": 2}, max_steps=24))
    losses = evals(service, parent)
    assert min(losses) < losses[-1] - 0.01, "two rows are learned by heart, so the last weights are not the best"
    for spec, expected in ((f"run:{parent}/best", min(losses)), (f"run:{parent}", losses[-1])):
        child = ran(service, settings(jobs, row, max_steps=1) | {"model": spec})
        assert evals(service, child)[0] == pytest.approx(expected, abs=1e-4)
        assert service.run(child).parent == parent
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        merged = [
            AutoModelForCausalLM.from_pretrained(service.result(parent, form))(input_ids=ids).logits
            for form in ("merged", "best-merged")
        ]
    assert float((merged[0] - merged[1]).abs().max()) > 0.01


def test_a_run_that_cannot_be_a_base_says_why(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "lora", "r": 4})

    def preview(spec: str, **changes: Any) -> Any:
        return service.preview(settings(jobs, row, **changes) | {"model": spec})

    for wrong in ("run:r9999", "run:", "run:r0001/first", "run:../../etc"):
        with pytest.raises(ModelError):
            preview(wrong)
    parent = ran(service, settings(jobs, row, max_steps=1), name="first")
    with pytest.raises(ModelError, match="revision"):
        preview(f"run:{parent}", revision="main")
    service.delete(parent)
    with pytest.raises(ModelError, match="first was deleted"):
        preview(f"run:{parent}")
    service.undelete(parent)
    shutil.rmtree(service.run_folder(parent))
    with pytest.raises(ModelError, match="nothing to train on"):
        preview(f"run:{parent}")
    prompting = ran(service, settings(jobs, Row(method={"name": "prompt_engineering"})))
    with pytest.raises(ModelError, match="trained nothing"):
        preview(f"run:{prompting}")
    classes = ran(service, settings(jobs, Row(method={"name": "full"}, task=CLASSES), max_steps=1))
    with pytest.raises(ModelError, match="learned classes and cannot write"):
        preview(f"run:{classes}")


def test_the_rows_of_the_next_run_are_shown_in_its_tokens(jobs: MatrixJobs, service: RunService) -> None:
    from fastapi.testclient import TestClient

    from tuning.web import add_routes

    row = Row(method={"name": "adapter"})
    parent = ran(service, settings(jobs, row, max_steps=1))
    app = FastAPI()
    add_routes(app, service)
    given = settings(jobs, row)
    plain, shown = (
        TestClient(app).post("/fork/data/preview", json=given | {"model": model}).json()
        for model in (given["model"], f"run:{parent}")
    )
    assert plain["problems"] == [] and shown == plain


def test_what_is_refused_at_start_merges_nothing(jobs: MatrixJobs, service: RunService) -> None:
    row = Row(method={"name": "lora", "r": 4})
    parent = ran(service, settings(jobs, row, max_steps=1))
    given = settings(jobs, row) | {"model": f"run:{parent}"}
    for wrong in ({"settings": given | {"method": {"name": "lora", "r": 5000}}}, {"settings": given, "name": ""}):
        with pytest.raises(TuningError):
            service.start(**wrong)
    assert not (service.run_folder(parent) / "merged").exists()


@pytest.mark.slow
def test_a_recipe_asks_the_model_that_is_trained_on(jobs: MatrixJobs, service: RunService) -> None:
    """R-Tuning sorts questions by what the model knows: that is the adapter's knowledge, not the bare base model's."""
    from tuning.training import base_answers as answering

    row = Row(method={"name": "adapter"})
    parent = ran(service, settings(jobs, row, max_steps=30))
    seen: list[str] = []
    real = answering.answers_with_confidence

    def heard(model: Any, *rest: Any, **more: Any) -> Any:
        seen.append(str(any(type(module).__name__ == "Adapted" for module in model.modules())))
        return real(model, *rest, **more)

    recipe = {"name": "r_tuning"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "answers_with_confidence", heard)
        given = settings(jobs, row, max_steps=1, eval={"every": None, "max_new_tokens": 2})
        ran(service, given | {"model": f"run:{parent}", "recipe": recipe})
    assert seen and set(seen) == {"True"}


def test_a_base_that_has_changed_under_an_adapter_is_reported(
    jobs: MatrixJobs, service: RunService, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(jobs.models[LLAMA], base)
    given = settings(jobs, Row(method={"name": "lora", "r": 4}), max_steps=1) | {"model": str(base)}
    parent = ran(service, given, name="first")
    file = base / "model.safetensors"
    old = file.read_bytes()
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"] += 0.01
    save_file(weights, file, {"format": "pt"})
    from tuning.text.question import Question

    for ask in (
        lambda: service.preview(given | {"model": f"run:{parent}"}),
        lambda: service.result(parent, "merged"),
        lambda: service.ask(parent, Question(["the red dog"])),
    ):
        with pytest.raises(TuningError, match=r"model\.safetensors has changed"):
            ask()
    file.write_bytes(old)
    assert (service.result(parent, "merged") / "config.json").is_file(), "the same bytes are the same model"
    (base / "config.json").unlink()
    with pytest.raises(RunError, match=r"config\.json is gone"):
        service.ask(parent, Question(["the red dog"]))


def test_the_card_of_a_chain_tells_the_chain(jobs: MatrixJobs, service: RunService) -> None:
    lora, full = Row(method={"name": "lora", "r": 4}), Row(method={"name": "full"})
    one = ran(service, settings(jobs, lora, max_steps=1), name="one")
    two = ran(service, settings(jobs, full, max_steps=1) | {"model": f"run:{one}"}, name="two")
    three = ran(service, settings(jobs, lora, max_steps=1) | {"model": f"run:{two}"}, name="three")
    card = (service.result(three) / "README.md").read_text("utf-8")
    chain = (
        f"the result of two (`run:{two}`), which was trained from the result of one (`run:{one}`), which was trained "
        "from `llama`, a folder on the machine that trained this."
    )
    assert f"Base model: {chain}" in card
    assert json.loads((service.run_folder(three) / "job.json").read_text())["plan"]["model"]["parent"]["parent"]


def command(*arguments: str, given: dict[str, Any]) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, lines of standard output as JSON, standard error of a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    line = [sys.executable, "-m", "tuning", *arguments]
    done = subprocess.run(line, input=json.dumps(given), env=environment, capture_output=True, text=True, timeout=180)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
def test_a_chain_of_three_on_the_command_line_each_in_a_fresh_process(jobs: MatrixJobs, tmp_path: Path) -> None:
    home, last = tmp_path / "home", None
    chain = [{"name": "lora", "r": 4}, {"name": "adapter"}, {"name": "adapter"}]
    for i, method in enumerate(chain):
        given = settings(jobs, Row(method=method), max_steps=4) | ({"model": f"run:r000{i}"} if i else {})
        code, events, err = command("run", "-", "--home", str(home), "--out", str(tmp_path / str(i)), given=given)
        assert code == 0, err
        assert not [line for line in err.splitlines() if not line.startswith(("data.", "model: "))], (
            "nothing of libraries"
        )
        losses = [event["loss"] for event in events if event["kind"] == "eval"]
        assert last is None or losses[0] == pytest.approx(last, abs=1e-4)
        assert abs(losses[-1] - losses[0]) > 1e-4
        last = losses[-1]
    assert "the result of" in (tmp_path / "2" / "adapter" / "README.md").read_text("utf-8")
    assert (tmp_path / "2" / "adapter" / "adapter.safetensors").is_file()


@pytest.mark.slow
def test_a_run_as_the_base_needs_its_home(jobs: MatrixJobs, service: RunService, tmp_path: Path) -> None:
    row = Row(method={"name": "lora", "r": 4})
    parent = ran(service, settings(jobs, row, max_steps=1), name="first")
    given = settings(jobs, row, max_steps=1) | {"model": f"run:{parent}"}
    code, (figures,), err = command("estimate", "-", "--home", str(service.home), given=given)
    assert code == 0 and figures["total_bytes"] > 0
    assert "the result of first is merged into its base model at Start" in err
    for more in ((), ("--home", str(tmp_path / "empty"))):
        for verb in ("estimate", "run"):
            code, (refusal,), err = command(verb, "-", *more, given=given)
            assert code == 2 and "--home DIR" in err
            assert refusal["problems"][0]["field"] == "model"
    assert not (tmp_path / "empty").exists()


@pytest.mark.slow
def test_the_copied_command_trains_on_from_the_same_result(
    jobs: MatrixJobs, service: RunService, tmp_path: Path
) -> None:
    from support.routes import client_of
    from tuning.web.results import add_result_routes
    from tuning.web.runs import add_run_routes

    row = Row(method={"name": "lora", "r": 4})
    parent = ran(service, settings(jobs, row, max_steps=4))
    given = settings(jobs, row, max_steps=1) | {"model": f"run:{parent}"}
    client = client_of(add_run_routes, service)
    notices = client.post("/fork/estimate", json=given).json()["notices"]
    assert [notice["field"] for notice in notices if notice["field"] != "data.columns"] == ["model"]
    child = client.post("/fork/runs", json={"settings": given}).json()["run_id"]
    assert service.wait(child, 120) == "finished"
    losses = evals(service, child)
    assert losses[0] == pytest.approx(evals(service, parent)[-1], abs=1e-4)
    assert next(run for run in client.get("/fork/live").json()["runs"] if run["run_id"] == child)["parent"] == parent
    line = client_of(add_result_routes, service).get(f"/fork/runs/{child}/command").json()["command"]
    line = line.replace("python -m tuning", f"{shlex.quote(sys.executable)} -m tuning")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    service.close()  # another process takes the home
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    again = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["loss"] for event in again if event["kind"] == "eval"] == losses
