"""Subsets and splits are those of the `datasets` library, held beside it on the same folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuning.hub.splits import CONVERTED, layout_of

FOLDERS: dict[str, tuple[str, ...]] = {
    "shards": (
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
        "data/odd_one-00000-of-00001-abc.parquet",
        "extra.jsonl",
    ),
    "names": ("train.jsonl", "valid.jsonl", "my_test_set.jsonl", "notes.jsonl"),
    "long names": ("a/reviews-train-2.csv", "a/reviews-dev.csv", "b/latest.csv", "b/testimony.csv"),
    "folders": ("train/a.jsonl", "train/b.jsonl", "validation_1/c.jsonl", "x/test/d.jsonl", "loose-train.jsonl"),
    "one file": ("rows.csv",),
    "plain": ("b.txt", "a.txt", "deep/c.txt"),
    "hidden": ("train.csv", ".train.csv", "__cache__/train.csv", ".git/train.csv", "sub/.x/test.csv"),
    "evaluation": ("training.json", "evaluation.json", "eval.json"),
    "packed": ("train.jsonl.gz", "test.csv.zst", "dev.jsonl.xz", "notes.jsonl"),
    "packed shards": ("data/train-00000-of-00001.jsonl.gz", "data/test-00000-of-00001.jsonl.gz"),
    "both": ("train_test.jsonl",),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_files_without_a_card_are_split_as_the_library_splits_them(name: str, tmp_path: Path) -> None:
    from datasets.data_files import DataFilesDict, get_data_patterns

    for file in FOLDERS[name]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    theirs = DataFilesDict.from_patterns(get_data_patterns(str(tmp_path)), base_path=str(tmp_path))
    expected = {
        str(split): sorted({str(Path(file).relative_to(tmp_path)) for file in files}) for split, files in theirs.items()
    }
    ours = layout_of(FOLDERS[name], None)
    assert ours.default == "default"
    assert {split: sorted(files) for split, files in ours.subsets["default"].items()} == expected


CARDS: dict[str, tuple[Any, ...]] = {
    "patterns": (
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": ["a/*.csv", "b/**"]}],
        },
    ),
    "lists": (
        {"config_name": "a", "data_files": ["a/x.csv", "b/*.csv"]},
        {"config_name": "b", "data_files": "b/**/*.csv"},
    ),
    "folders": (
        {"config_name": "one", "data_dir": "a"},
        {"config_name": "two", "data_dir": "./b", "data_files": "*.csv"},
    ),
}
FILES = ("data/train-1.csv", "data/train-2.csv", "data/test.csv", "a/x.csv", "a/train.csv", "b/y.csv", "b/deep/z.csv")


@pytest.mark.parametrize("name", CARDS)
def test_the_cards_subsets_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    import yaml
    from datasets import load_dataset_builder

    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("text,label\na,b\n")
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': list(CARDS[name])})}---\n")
    ours = layout_of(FILES, list(CARDS[name]))
    assert set(ours.subsets) == {entry["config_name"] for entry in CARDS[name]}
    for subset, splits in ours.subsets.items():
        theirs = load_dataset_builder(str(tmp_path), subset, cache_dir=str(tmp_path / "cache")).config.data_files
        expected = {str(s): sorted(str(Path(f).relative_to(tmp_path)) for f in files) for s, files in theirs.items()}
        assert {split: sorted(files) for split, files in splits.items()} == expected


def test_which_subset_is_taken_when_none_is_named() -> None:
    first, second = {"config_name": "first", "data_dir": "a"}, {"config_name": "second", "data_dir": "b"}
    assert layout_of(FILES, [first]).default == "first"
    assert layout_of(FILES, [first, second]).default is None
    assert layout_of(FILES, [first, second | {"default": True}]).default == "second"


def test_only_files_of_rows_and_of_one_format_are_taken() -> None:
    names = (
        "train.py train.pkl train.zip train.tar.gz train.gz train.parquet train.csv ../train.csv /train.csv train.txt"
    )
    layout = layout_of(names.split(), None)
    assert layout.subsets == {"default": {"train": ("train.parquet",)}}
    assert layout_of(("make.py", "rows.pkl"), None).subsets == {}


def test_the_hubs_own_copy_has_a_folder_for_each_subset_and_split() -> None:
    files = (
        "plain/train/0000.parquet",
        "plain/train/0001.parquet",
        "plain/partial-test/0000.parquet",
        "other/train/0.parquet",
    )
    layout = layout_of(files, None, CONVERTED)
    assert layout.subsets["plain"] == {"test": files[2:3], "train": files[:2]} and layout.default is None
