"""What `run --out` may write into: never a folder that no run has made, and never over the base model or the data."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tiny_jobs import TinyJobs
from tuning.cli import main

torch = pytest.importorskip("torch")


@pytest.fixture
def jobs(tmp_path: Path) -> TinyJobs:
    return TinyJobs(tmp_path / "jobs")


def state_of(folder: Path) -> dict[str, bytes | str]:
    """Every file below, by its bytes; of a link, where it leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def run(settings: dict[str, Any], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        file = tmp_path / "given.json"
        file.write_text(json.dumps(settings))
        try:
            code = main(["run", str(file), *arguments])
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, lines

    return run


def refused(ran: Any, settings: dict[str, Any], out: Path, words: str) -> None:
    code, lines = ran(settings, "--out", str(out))
    assert code == 2, lines[-1]
    (problem,) = lines[0]["problems"]
    assert problem["field"] == "out" and words in problem["message"], problem


def test_a_folder_with_anything_else_in_it_is_refused(jobs: TinyJobs, ran: Any, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    (out / "model").mkdir(parents=True)
    (out / "model" / "mine.bin").write_text("years of work")
    before = state_of(out)
    refused(ran, jobs.settings(max_steps=1), out, "no run has made it")
    for name in ("events.jsonl", "settings.json"):  # files of these names, but not a run's
        (out / name).write_text("{}")
    refused(ran, jobs.settings(max_steps=1), out, "no run has made it")
    assert {key: value for key, value in state_of(out).items() if key in before} == before


@pytest.mark.parametrize("linked", [False, True], ids=["there", "through a link"])
def test_the_base_model_is_never_replaced(jobs: TinyJobs, ran: Any, tmp_path: Path, linked: bool) -> None:
    out = tmp_path / "out"
    code, _ = ran(jobs.settings(max_steps=1), "--out", str(out))
    assert code == 0
    shutil.rmtree(out / "model")
    if linked:
        (out / "model").symlink_to(jobs.model)
    else:
        shutil.copytree(jobs.model, out / "model")
    before = state_of(out), state_of(jobs.model)
    given = jobs.settings(max_steps=1) | {"model": str(out / "model")}
    refused(ran, given, out, "holds the base model")
    refused(ran, given, out / "model", "holds the base model" if not linked else "base model")
    refused(ran, given, out / "model" / "result", "base model")
    if linked:
        (tmp_path / "way").symlink_to(out)
        refused(ran, given, tmp_path / "way", "base model")
    assert (state_of(out), state_of(jobs.model)) == before


def test_the_rows_are_never_in_the_folder(jobs: TinyJobs, ran: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _ = ran(jobs.settings(max_steps=1), "--out", str(out))
    assert code == 0
    rows = out / "predictions" / "rows.jsonl"
    shutil.copyfile(jobs.rows, rows)
    given = jobs.settings(max_steps=1, data={"source": str(rows)})
    refused(ran, given, out, "holds the data")
    assert rows.is_file()
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copyfile(jobs.rows, folder / "train.jsonl")
    given = jobs.settings(max_steps=1, data={"source": str(folder)})
    refused(ran, given, folder / "result", "data")


def test_a_folder_of_a_run_takes_the_next_one_and_a_link_in_it_leads_nowhere(
    jobs: TinyJobs, ran: Any, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "kept"
    given = jobs.settings(max_steps=2, method={"name": "lora", "r": 4}, save={"every": 1})
    assert ran(given, "--out", str(out))[0] == 0
    assert (out / "checkpoints").is_dir()
    shutil.move(out / "adapter", elsewhere)
    (out / "adapter").symlink_to(elsewhere)
    (out / "mine.txt").write_text("stays")
    before = state_of(elsewhere)
    full = jobs.settings(max_steps=1)
    assert ran(full, "--out", str(out))[0] == 0
    assert state_of(elsewhere) == before, "what the link led to"
    assert not (out / "adapter").exists() and not (out / "checkpoints").exists()
    assert (out / "model" / "model.safetensors").is_file() and (out / "mine.txt").read_text() == "stays"


def test_an_empty_folder_is_as_good_as_a_new_one(jobs: TinyJobs, ran: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ran(jobs.settings(max_steps=1), "--out", str(tmp_path / "empty"))[0] == 0
