"""What rows of the hub are once they are here: packed files are read as rows, classes have the names of the card."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, only_hub

from tuning.data import open_data
from tuning.hub.hub_data import download_data_now
from tuning.settings import DataSettings

NAME = "town/meals"
ROWS = [{"text": f"meal number {n} was good", "label": n % 2} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "served").mkdir()
    with only_hub(monkeypatch, tmp_path / "cache", datasets={NAME: tmp_path / "served"}) as hub:
        yield hub


def serve(hub: Hub, **files: bytes) -> None:
    """Files of the data set, a dot in a name written as an underscore; and they are downloaded."""
    for name, content in files.items():
        (hub.datasets[NAME] / name.replace("_", ".")).write_bytes(content)
    download_data_now(NAME, None, None, None, lambda done, total: None)


def test_packed_files_are_fetched_and_read_as_rows(hub: Hub) -> None:
    serve(hub, train_jsonl_gz=gzip.compress(LINES), test_jsonl_gz=gzip.compress(LINES[: LINES.index(b"\n")]))
    data = open_data(DataSettings(source=NAME, columns={"text": "text"}), "causal_lm", 0)
    assert [row.text for row in data.train] == [row["text"] for row in ROWS] and len(data.eval) == 1
