"""Which checkpoint of a run is the newest: one answer for a resumed run, a result, and the page, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tuning.training.checkpoint_files import (
    BEST_FILE,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    best_weights,
    checkpoint_folder,
    checkpoint_folders,
    checkpoint_step,
    newest_complete,
)


def make_checkpoint(run_folder: Path, step: int, suffix: str = "") -> Path:
    folder = checkpoint_folder(run_folder, step)
    folder = folder.with_name(folder.name + suffix)
    folder.mkdir(parents=True)
    (folder / STATE).write_text("{}")
    for name in (WEIGHTS, OPTIMIZER):
        (folder / name).write_bytes(b"some bytes")
    return folder


def test_the_newest_comes_first(tmp_path: Path) -> None:
    folders = [make_checkpoint(tmp_path, step) for step in (2, 10, 4)]
    assert [checkpoint_step(folder) for folder in checkpoint_folders(tmp_path)] == [10, 4, 2]
    assert newest_complete(tmp_path) == folders[1]


def test_one_that_was_being_replaced_when_the_process_was_killed_counts(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 2)
    replaced = make_checkpoint(tmp_path, 4, ".old")
    assert newest_complete(tmp_path) == replaced and checkpoint_step(replaced) == 4
    replacing = make_checkpoint(tmp_path, 4)
    assert newest_complete(tmp_path) == replacing, "the new one is there in whole"


def test_one_that_is_half_written_does_not_count(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 6, ".part")
    assert checkpoint_folders(tmp_path) == [] and newest_complete(tmp_path) is None


@pytest.mark.parametrize("file", [STATE, WEIGHTS, OPTIMIZER])
def test_one_without_all_its_files_is_skipped(tmp_path: Path, file: str) -> None:
    whole, damaged = make_checkpoint(tmp_path, 2), make_checkpoint(tmp_path, 4)
    (damaged / file).unlink()
    assert newest_complete(tmp_path) == whole
    (damaged / file).touch()
    assert newest_complete(tmp_path) == whole, f"an empty {file}"


def test_the_best_weights_say_of_which_evaluation_they_are(tmp_path: Path) -> None:
    assert best_weights(tmp_path) is None
    weights = {"weight": np.zeros(3, dtype=np.float32)}
    save_file(weights, tmp_path / BEST_FILE, {"step": "7", "value": "1.25"})
    assert best_weights(tmp_path) == (7, 1.25)
    (tmp_path / BEST_FILE).write_bytes(b"not weights")
    assert best_weights(tmp_path) is None
