"""Rows, base model and adapter that change between Start and training, or before a run goes on, are told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.tiny_jobs import TinyJobs
from tuning.core.errors import RunError
from tuning.models.file_digests import base_files, changes
from tuning.runs.service import RunService

torch = pytest.importorskip("torch")


@pytest.fixture
def jobs(tmp_path: Path) -> TinyJobs:
    """Of each test's own, for its files are changed."""
    return TinyJobs(tmp_path / "jobs")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home")
    yield service
    service.close()


def other_rows(jobs: TinyJobs) -> None:
    text = jobs.rows.read_text("utf-8")
    jobs.rows.write_text(text.replace("dog", "cat"), "utf-8")


def other_weights(jobs: TinyJobs) -> None:
    from safetensors.torch import load_file, save_file

    file = jobs.model / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] *= 1.01
    save_file(weights, file, {"format": "pt"})


def other_tokenizer(jobs: TinyJobs) -> None:
    file = jobs.model / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace('"dog"', '"hound"'), "utf-8")


CHANGES = [
    (other_rows, "the rows of rows.*are others"),
    (other_weights, r"model\.safetensors has changed in the base model base"),
    (other_tokenizer, r"tokenizer\.json has changed in the base model base"),
]


@pytest.mark.parametrize("change, words", CHANGES, ids=["rows", "weights", "tokenizer"])
def test_a_queued_run_is_not_trained_on_what_was_not_planned(
    jobs: TinyJobs, service: RunService, change: Callable[[TinyJobs], None], words: str
) -> None:
    import re

    elsewhere = TinyJobs(jobs.folder / "other")
    first = service.start(elsewhere.settings(max_steps=100_000))
    queued = service.start(jobs.settings())
    change(jobs)
    service.stop(first)
    assert service.wait(queued, 60) == "failed"
    message = service.run(queued).message or ""
    assert re.search(words, message) and "Start it again" in message
    assert service.store.events(queued, "step") == []


@pytest.mark.parametrize("change, words", CHANGES, ids=["rows", "weights", "tokenizer"])
def test_a_run_goes_on_only_with_what_it_was_planned_with(
    jobs: TinyJobs, service: RunService, change: Callable[[TinyJobs], None], words: str
) -> None:
    run_id = service.start(jobs.settings(max_steps=100_000, save={"every": 2}))
    while service.run(run_id).step < 3:
        assert service.wait(run_id, 0.05) is None, service.run(run_id).message
    service.stop(run_id)
    assert service.wait(run_id, 60) == "cancelled"
    shutil.copytree(jobs.folder, jobs.folder.parent / "kept")
    change(jobs)
    with pytest.raises(RunError, match=words):
        service.resume_from_checkpoint(run_id)
    assert service.run(run_id).state == "cancelled", "it can still go on, once the files are back"
    shutil.copytree(jobs.folder.parent / "kept", jobs.folder, dirs_exist_ok=True)
    service.resume_from_checkpoint(run_id)
    step = service.run(run_id).step
    while service.run(run_id).step < step + 2:
        assert service.wait(run_id, 0.05) is None, service.run(run_id).message
    service.stop(run_id)
    assert service.wait(run_id, 60) == "cancelled"


def test_an_adapter_that_is_trained_on_is_compared_too(jobs: TinyJobs, service: RunService) -> None:
    given = jobs.settings(method={"name": "adapter"}, max_steps=1)
    parent = service.start(given)
    assert service.wait(parent, 60) == "finished"
    long = service.start(jobs.settings(max_steps=100_000))
    child = service.start(given | {"model": f"run:{parent}"})
    from safetensors.torch import load_file, save_file

    file = service.run_folder(parent) / "adapter" / "adapter.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)
    service.stop(long)
    assert service.wait(child, 60) == "failed"
    assert "adapter.safetensors has changed in the adapter" in (service.run(child).message or "")


def test_a_job_that_cannot_be_read_is_reported_and_never_waits_for_ever(jobs: TinyJobs, service: RunService) -> None:
    run_id = service.start(jobs.settings(max_steps=100_000, save={"every": 1}))
    while service.run(run_id).step < 2:
        assert service.wait(run_id, 0.05) is None
    service.stop(run_id)
    assert service.wait(run_id, 60) == "cancelled"
    (service.run_folder(run_id) / "job.json").write_text("{")
    with pytest.raises(RunError, match=r"job\.json of .* is gone or not readable"):
        service.resume_from_checkpoint(run_id)
    assert service.run(run_id).state == "cancelled"


def test_a_digest_tells_content_apart_and_nothing_else(jobs: TinyJobs) -> None:
    files = base_files(jobs.model, [jobs.model / "model.safetensors"])
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} == set(files)
    for file in jobs.model.iterdir():
        os.utime(file, (1, 1))
    assert changes(jobs.model, files) == [], "copied or touched, the same bytes are the same model"
    other_weights(jobs)
    assert changes(jobs.model, files) == ["model.safetensors has changed"]
    (jobs.model / "config.json").unlink()
    assert changes(jobs.model, files) == ["model.safetensors has changed", "config.json is gone"]


def test_every_tensor_counts(tmp_path: Path) -> None:
    """A change of one tensor among many, also of one of a single number, is seen."""
    from safetensors.torch import save_file

    weights: dict[str, Any] = {f"w{i}": torch.full((i + 1, 7), float(i)) for i in range(40)}
    weights["scale"] = torch.tensor(1.0)
    save_file(weights, tmp_path / "model.safetensors")
    files = base_files(tmp_path, [tmp_path / "model.safetensors"])
    for name in weights:
        save_file(weights | {name: weights[name] + 1}, tmp_path / "model.safetensors")
        assert changes(tmp_path, files), name
    save_file(weights, tmp_path / "model.safetensors")
    assert not changes(tmp_path, files)
