"""What rows of the hub are once they are here: packed files are read as rows, classes have the names of the card."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.hub_server import Hub, only_hub
from support.routes import client_of
from support.tiny_jobs import TinyJobs, run
from tuning.core.errors import DataError
from tuning.core.paths import asset_path
from tuning.data import DataSet, open_data
from tuning.data.preview.preview import preview
from tuning.hub.data_sets import download_data_now
from tuning.hub.label_names import classes_of, classes_of_subset
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer
from tuning.web.hub_data import add_hub_data_routes

NAME = "town/meals"
ROWS = [{"text": f"meal number {n} was good", "label": n % 2} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()

TOKENIZER = TextTokenizer(asset_path("models", "tiny-town"))


@pytest.fixture
def client() -> TestClient:
    return client_of(add_hub_data_routes)


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


def card(*names: str, label: str = "label", subset: str | None = None, other: str = "") -> bytes:
    numbered = "".join(f"          '{i}': {name}\n" for i, name in enumerate(names))
    config = f"  config_name: {subset}\n" if subset else ""
    return (
        f"---\nlicense: mit\ndataset_info:\n{config}  features:\n  - name: text\n    dtype: string\n  - name: {label}\n"
        f"    dtype:\n      class_label:\n        names:\n{numbered}{other}---\n# Meals\n"
    ).encode()


def opened(task: str = "sequence_classification", **changes: Any) -> DataSet:
    return open_data(DataSettings(source=NAME, eval_fraction=0.0, **changes), task, 0)


def test_the_cards_names_of_classes_are_shown_and_trained_on(hub: Hub, client: TestClient) -> None:
    serve(hub, README_md=card("cold", "warm"), train_jsonl=LINES)
    data = opened()
    assert data.label_names == ("cold", "warm") and [row.label for row in data.train][:3] == [0, 1, 0]
    assert [row.completion for row in opened("causal_lm").train][:3] == [" cold", " warm", " cold"]
    named = opened(label_names=("bad", "good"))
    assert named.label_names == ("bad", "good") and named.fingerprint != data.fingerprint
    assert [row.completion for row in opened("causal_lm", label_names=("bad", "good")).train][:2] == [" bad", " good"]
    assert [row.completion for row in opened("causal_lm", label_names=("0", "1")).train][:2] == [" 0", " 1"]
    assert opened(label_names=("a", "b", "none")).label_names == ("a", "b", "none"), "a class without rows"
    with pytest.raises(DataError, match="names 1 classes and the rows have 2") as refusal:
        opened(label_names=("bad",))
    assert refusal.value.problems[0].field == "data.label_names"
    shown = preview(DataSettings(source=NAME), "sequence_classification", 0, TOKENIZER, 8)
    assert [label["name"] for label in shown["labels"]] == ["cold", "warm"] and shown["tokens"][1]["label"] == 1
    assert shown["rows"][1]["cells"]["label"] == "1 (warm)"
    assert any("names the classes of label: 0 cold, 1 warm." in note for note in shown["notes"])


def test_the_names_are_there_before_the_download_and_in_a_run(hub: Hub, client: TestClient, tmp_path: Path) -> None:
    folder = hub.datasets[NAME]
    (folder / "README.md").write_bytes(card("cold", "warm"))
    (folder / "train.jsonl").write_bytes(LINES)
    answer = client.post("/fork/data/lookup", json={"source": NAME}).json()
    assert [row["label"] for row in answer["rows"]] == ["0 (cold)", "1 (warm)", "0 (cold)", "1 (warm)"]
    assert any("0 cold, 1 warm" in note for note in answer["notes"])
    download_data_now(NAME, None, None, None, lambda done, total: None)
    jobs = TinyJobs(tmp_path)
    changes: dict[str, Any] = {"task": "sequence_classification", "max_steps": 2}
    job = jobs.job(**changes, data={"source": NAME, "columns": {"text": "text", "label": "label"}})
    assert run(job)[0] == "finished" and job.plan.data.label_names == ("cold", "warm")
    config = json.loads((Path(job.folder) / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "cold", "1": "warm"}


def test_rows_without_a_class_are_bad_rows(hub: Hub) -> None:
    lines = LINES + b'{"text": "no class", "label": -1}\n{"text": "a third", "label": 2}\n'
    serve(hub, README_md=card("cold", "warm"), train_jsonl=lines + b'{"text": "by name", "label": "warm"}\n')
    with pytest.raises(DataError, match="line 21 column 'label' is '-1', and the classes are 0 to 1; line 22"):
        opened()
    data = opened(bad_rows="skip")
    assert len(data.train) == 21 and [row.label for row in data.train][-1] == 1


def test_names_that_are_numbers_are_taken_by_their_place(hub: Hub) -> None:
    serve(hub, README_md=card('"1"', '"2"', '"3"'), train_csv=b"text,label\na,0\nb,1\nc,2\nd,1.0\n")
    assert [row.completion for row in opened("causal_lm").train] == [" 1", " 2", " 3", " 2"]


def test_a_named_column_is_the_label_whatever_it_is_called(hub: Hub) -> None:
    rows = "".join(json.dumps({"id": n, "text": row["text"], "coarse": n % 2}) + "\n" for n, row in enumerate(ROWS))
    serve(hub, README_md=card("cold", "warm", label="coarse"), train_jsonl=rows.encode())
    assert opened().columns == {"text": "text", "label": "coarse"}
    assert opened("causal_lm", columns={"text": "text"}).label_names is None, "always changeable"


def test_each_subset_has_its_own_names() -> None:
    feature = {"name": "label", "dtype": {"class_label": {"names": ["a", "b"]}}}
    assert classes_of({"features": [feature]}) == {"": {"label": ("a", "b")}}
    info = [{"config_name": "x", "features": [feature]}, {"config_name": "y", "features": [{"name": "label"}]}]
    assert classes_of(info) == {"x": {"label": ("a", "b")}}
    assert (
        classes_of_subset(classes_of(info), "x") == {"label": ("a", "b")}
        and classes_of_subset(classes_of(info), "y") == {}
    )


@pytest.mark.parametrize(
    "info",
    [
        None,
        "text",
        3,
        [],
        [None, "x", 3],
        {},
        {"features": None},
        {"features": {"label": 1}},
        {"features": [None, 3]},
        *(
            {"features": [{"name": "label", "dtype": {"class_label": about}}]}
            for about in (
                None,
                "x",
                {},
                {"names": None},
                {"names": "ab"},
                {"names": ["a"]},
                {"names": ["a", "a"]},
                {"names": ["a", ""]},
                {"names": {"0": "a", "2": "b"}},
                {"names": {"x": "a"}},
                {"names": [str(n) for n in range(5000)]},
            )
        ),
    ],
    ids=str,
)
def test_a_card_that_is_written_otherwise_names_nothing(info: Any) -> None:
    assert classes_of(info) == {}


def test_a_strange_card_leaves_the_numbers(hub: Hub) -> None:
    serve(hub, README_md=card("same", "same"), train_jsonl=LINES)
    assert opened().label_names == ("0", "1")
