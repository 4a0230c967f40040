"""The model card: its Python runs as printed, its base model is true on any machine, nothing tells a server's paths."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.method_matrix import BERT, CLASSES, LLAMA, TIED, MatrixJobs, Row
from support.tiny_jobs import run
from tuning.methods import METHODS, method_named
from tuning.models.base_model import resolve_model
from tuning.plan.plan import Plan, plan_for
from tuning.runs.service import RunService
from tuning.training.model_card import base_words, library_versions, model_card

torch = pytest.importorskip("torch")

ROWS = [
    Row(method={"name": "full"}),
    Row(method={"name": "full"}, task=CLASSES),
    Row(method={"name": "partial", "head": True}, model=TIED),
    Row(method={"name": "galore", "rank": 4}),
    Row(method={"name": "lora", "r": 4}),
    Row(method={"name": "lora", "r": 4, "init": "pissa"}),
    Row(method={"name": "lora", "r": 4}, task=CLASSES, model=BERT),
    Row(method={"name": "qlora", "r": 4}),
    Row(method={"name": "qlora", "r": 4, "quant_type": "fp4", "double_quant": False}, task=CLASSES),
    Row(method={"name": "ia3"}),
    Row(method={"name": "feature_extraction"}, model=TIED),
    Row(method={"name": "feature_extraction", "head": "kan"}, task=CLASSES),
    Row(method={"name": "feature_extraction", "head": "mlp"}, task=CLASSES, model=BERT),
    Row(method={"name": "adapter"}),
    Row(method={"name": "adapter"}, task=CLASSES),
    Row(method={"name": "prompt_tuning"}),
    Row(method={"name": "prefix_tuning"}),
    Row(method={"name": "p_tuning"}),
]
IDS = [1, 5, 9, 7, 6]
BEHIND = f"""
import json as _json, torch as _torch
with _torch.no_grad():
    logits = model(input_ids=_torch.tensor([{IDS}])).logits
names = getattr(model.config, "id2label", None)
found = {{"logits": logits.tolist(), "names": names, "ids": tokenizer("the red dog").input_ids}}
_json.dump(found, open("found.json", "w"))
"""
WORKER = """
import io, json, os, runpy, sys, traceback
for folder in json.load(sys.stdin):
    os.chdir(folder)
    paths, modules = list(sys.path), set(sys.modules)
    try:
        runpy.run_path("printed.py")
    except BaseException:
        open("fault.txt", "w").write(traceback.format_exc())
    sys.path[:] = paths
    sys.path_importer_cache.clear()  # it knows "adapter" of the folder before
    for name in set(sys.modules) - modules:
        if name == "load":
            del sys.modules[name]
"""
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def printed(folder: Path) -> str:
    """The Python in a card."""
    blocks = CODE.findall((folder / "README.md").read_text("utf-8"))
    assert len(blocks) == 1
    return blocks[0]


def run_printed(folders: list[Path]) -> list[dict[str, Any]]:
    """Each printed.py in its folder, all in one fresh process: importing the libraries is what takes long."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=json.dumps([str(folder) for folder in folders]),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    for folder in folders:
        assert not (folder / "fault.txt").exists(), (folder / "printed.py").read_text() + (
            folder / "fault.txt"
        ).read_text()
    return [json.loads((folder / "found.json").read_text("utf-8")) for folder in folders]


def test_the_rows_are_all_methods_that_leave_something() -> None:
    assert {row.method["name"] for row in ROWS} == {method.name for method in METHODS if method.updates}


@pytest.mark.slow
def test_the_printed_python_loads_every_kind_of_result(tmp_path: Path) -> None:
    """Beside nothing but the result and, for an adapter, the base model's folder: to the logits it had in training."""
    from tuning.training import session

    jobs, merged = MatrixJobs(tmp_path / "jobs"), dict[str, Any]()
    real = session.save_artifact

    def keep(model: Any, *rest: Any) -> Any:
        with torch.no_grad():
            merged["logits"] = model.eval()(input_ids=torch.tensor([IDS])).logits.clone()
        return real(model, *rest)

    folders, expected = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "save_artifact", keep)
        for i, row in enumerate(ROWS):
            job = jobs.of(row, max_steps=4, eval={"every": None}, data={"eval_fraction": 0.0})
            assert run(job)[0] == "finished"
            name, base, folder = (
                method_named(row.method["name"]).artifact,
                jobs.models[row.model],
                tmp_path / str(i),
            )
            shutil.copytree(Path(job.folder) / name, folder / name)
            if name == "adapter":
                shutil.copytree(base, folder / base.name)
            (folder / "printed.py").write_text(printed(folder / name) + BEHIND)
            folders.append(folder)
            expected.append(merged["logits"])
    shutil.move(jobs.folder, tmp_path / "gone")  # the machine that trained it is another one
    for row, loaded, logits in zip(ROWS, run_printed(folders), expected, strict=True):
        theirs = torch.tensor(loaded["logits"])
        if theirs.dim() == 3:
            theirs, logits = theirs[:, -len(IDS) :], logits[:, -len(IDS) :]
        assert float((theirs - logits).abs().max()) < 1e-4, row.id
        if row.task == CLASSES:
            assert loaded["names"] == {"0": "no", "1": "yes"}, row.id
        assert len(loaded["ids"]) >= 3


@pytest.mark.slow
def test_the_printed_python_finds_bundled_hub_and_merged_base_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = MatrixJobs(tmp_path / "jobs")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    snapshot = cache / "models--acme--tiny" / "snapshots" / commit
    shutil.copytree(jobs.models[LLAMA], snapshot)
    (cache / "models--acme--tiny" / "refs").mkdir()
    (cache / "models--acme--tiny" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    service = RunService(tmp_path / "home")
    try:
        folders = []

        def left(name: str, model: str, method: dict[str, Any], form: str = "trained", **changes: Any) -> str:
            given = jobs.settings(max_steps=1, method=method, eval={"every": None}, **changes) | {"model": model}
            if model == "tiny-town":
                given["data"] = {"source": "pirate", "train_rows": 8, "eval_rows": 2, "max_seq_length": 32}
            run_id = service.start(given, name=name)
            assert service.wait(run_id, 120) == "finished", service.run(run_id).message
            artifact = service.result(run_id, form)
            shutil.copytree(artifact, tmp_path / name / artifact.name)
            (tmp_path / name / "printed.py").write_text(printed(artifact) + BEHIND)
            folders.append(tmp_path / name)
            return run_id

        lora, adapter = {"name": "lora", "r": 4}, {"name": "adapter", "bottleneck": 4}
        left("bundled", "tiny-town", lora)
        hub = left("hub", "hub:acme/tiny", lora)
        left("own", "acme/tiny", adapter)
        merged = left("merged", str(jobs.models[LLAMA]), lora, form="merged")
        left("second", f"run:{merged}", lora)
        shutil.copytree(service.result(merged, "merged"), tmp_path / "second" / "merged")
        run_printed(folders)
        front = (service.result(hub) / "README.md").read_text("utf-8").split("---")[1]
        assert "base_model: acme/tiny\n" in front and "library_name: peft" in front
        assert f"`acme/tiny` of the hub, revision `{commit}`" in (service.result(hub) / "README.md").read_text("utf-8")
        whole = left("whole", f"run:{hub}", {"name": "full"})
        front = (service.result(whole) / "README.md").read_text("utf-8").split("---")[1]
        assert "base_model: acme/tiny\n" in front, "a whole model was trained from it, by way of another run"
        beside = (service.result(left("beside", f"run:{hub}", lora)) / "README.md").read_text("utf-8")
        assert "base_model" not in beside.split("---")[1], "this adapter does not fit the hub's model"
        assert "library_name: transformers" in (tmp_path / "merged" / "merged" / "README.md").read_text("utf-8")
    finally:
        service.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.task != CLASSES or row.model == BERT], ids=lambda row: row.id
)
def test_no_saved_file_tells_a_path_of_the_server(tmp_path: Path, row: Row) -> None:
    jobs = MatrixJobs(tmp_path / "jobs")
    service = RunService(tmp_path / "home")
    try:
        given = jobs.settings(task=row.task, model=str(jobs.models[row.model]), method=row.method, max_steps=1)
        run_id = service.start(given)
        assert service.wait(run_id, 120) == "finished", service.run(run_id).message
        folders = [service.result(run_id)]
        if method_named(row.method["name"]).merged_shape(
            resolve_model(str(jobs.models[row.model])).shape, plan_for(given).settings.method, int(row.task == CLASSES)
        ):
            folders.append(service.result(run_id, "merged"))
        missing = [
            file
            for folder in folders
            for file in folder.rglob("*")
            if file.is_file() and str(tmp_path).encode() in file.read_bytes()
        ]
        assert missing == []
    finally:
        service.close()


def card_of(plan: Plan, **more: Any) -> str:
    return model_card(plan, [], {"state": "finished", "step": 1, "seconds": 1.0}, library_versions(), **more)


def test_the_settings_of_a_card_are_read_again_in_a_folder_with_model_and_rows(tmp_path: Path) -> None:
    jobs = MatrixJobs(tmp_path / "jobs")
    text = card_of(plan_for(jobs.settings()))
    settings = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert (settings["model"], settings["data"]["source"]) == ("./base", "./rows.jsonl")
    assert str(tmp_path) not in text


def test_notices_before_the_run_stand_in_the_card(tmp_path: Path) -> None:
    jobs = MatrixJobs(tmp_path / "jobs")
    plan = plan_for(jobs.settings() | {"version": 1})
    card = card_of(plan)
    assert "version" in [notice.field for notice in plan.notices]
    assert "## What was told before the run\n\n- `version`: " in card
    assert all(f"- `{notice.field}`: {notice.message}" in card for notice in plan.notices)
    assert "What was told" not in card_of(replace(plan, notices=()))


def test_a_card_says_of_which_update_recovered_weights_are_where_that_is_not_the_last(tmp_path: Path) -> None:
    plan = plan_for(MatrixJobs(tmp_path / "jobs").settings())
    best = card_of(plan, source={"kind": "best", "step": 1})
    assert "those of update 1, its best evaluation, because the run was cut off before a checkpoint." in best
    older = card_of(plan, source={"kind": "checkpoint", "step": 1_000})
    assert "those of update 1,000, its last checkpoint, because the run was cut off after it." in older
    last = card_of(plan, source={"kind": "checkpoint", "step": 1})
    assert last == card_of(plan), "its length says it already"


def test_a_base_model_is_named_in_words_that_are_true_elsewhere() -> None:
    assert base_words(resolve_model("tiny-town")) == "`tiny-town`, which comes with Tuning Fork"
    front = card_of(plan_for({"data": {"source": "pirate"}})).split("---")[1]
    assert "base_model" not in front, "the field means a hub id"
    assert "- tuning-fork" in front
