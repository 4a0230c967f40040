"""Data sets of the hub: looked up and fetched only on a press, read offline like any other file, refused in sentences.

Every test talks to a real server on this machine that speaks the hub's own interface.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.hub_server import COMMIT, SECRET, Hub, only_hub, wait_for_download
from support.routes import client_of
from tuning.core.errors import DataError, TuningError
from tuning.data import open_data
from tuning.hub.data_sets import download_data_now, look_up_data
from tuning.hub.download import fetch
from tuning.hub.remote_file import PIECE_BYTES
from tuning.hub.splits import CONVERTED
from tuning.plan.plan import plan_for
from tuning.settings.schema import DataSettings, Settings
from tuning.web.hub_data import add_hub_data_routes

TALKS, WIDE, SCRIPTED, NAMED = "town/talks", "town/wide", "town/scripted", "town/named"
PACKED = "town/packed"
ROOT = Path(__file__).resolve().parents[2]
WIDE_ROWS = 60_000


def rows(start: int, count: int, word: str = "meal") -> bytes:
    rows = ({"text": f"{word} number {n} was good", "label": n % 2} for n in range(start, start + count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def noisy(count: int) -> bytes:
    """Rows that do not shrink much when they are packed."""
    draw = random.Random(0)
    rows = ({"text": f"meal number {n} cost {draw.getrandbits(600)}", "label": n % 2} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(start: int, count: int) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    columns = {
        "text": [f"bed number {n} was soft" for n in range(start, start + count)],
        "label": [n % 2 for n in range(start, start + count)],
    }
    pyarrow.parquet.write_table(
        pyarrow.table(columns), out, row_group_size=2_000, use_dictionary=False, compression="none"
    )
    return out.getvalue()


CARD = """---
license: cc-by-4.0
configs:
- config_name: meals
  default: true
  data_files:
  - split: train
    path: meals/part-*
  - split: test
    path: meals/held.csv
- config_name: beds
  data_files: beds/*
---
# Talks
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data sets as they lie on the hub, with things in them that must never be fetched."""
    files: dict[str, dict[str, bytes]] = {
        TALKS: {
            "README.md": CARD.encode(),
            "meals/part-1.jsonl": rows(0, 30),
            "meals/part-2.jsonl": rows(30, 30),
            "meals/held.csv": b"text,label\nwarm soup,1\ncold soup,0\n",
            "beds/all.parquet": parquet(0, 20),
            "talks.py": b"raise SystemExit",
            "meals/part-3.pkl": b"\x80\x04" + b"x" * 9000,
        },
        WIDE: {"data/train-00000-of-00001.parquet": parquet(0, WIDE_ROWS), "big.zip": b"PK\x03\x04" * 9000},
        SCRIPTED: {"scripted.py": b"raise SystemExit", "raw.bin": b"x" * 9000},
        PACKED: {"train.jsonl.gz": gzip.compress(noisy(20_000)), "test.jsonl.gz": gzip.compress(rows(0, 4))},
        NAMED: {"train.jsonl": rows(0, 20_000), "validation.jsonl": rows(50, 10)},
    }
    folder = tmp_path_factory.mktemp("served")
    for name, content in files.items():
        for file, written in content.items():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(written)
    return {name: folder / name for name in files}


@pytest.fixture
def hub(served: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with only_hub(monkeypatch, tmp_path / "cache", datasets=dict(served)) as hub:
        yield hub


@pytest.fixture
def client() -> TestClient:
    return client_of(add_hub_data_routes)


def download(name: str, subset: str | None = None, revision: str | None = None) -> None:
    download_data_now(name, subset, revision, None, lambda done, total: None)


def texts(**settings: Any) -> tuple[list[str], list[str]]:
    data = open_data(DataSettings(columns={"text": "text"}, **settings), "causal_lm", 0)
    return [row.text or "" for row in data.train], [row.text or "" for row in data.eval]


# -- look-up ----------------------------------------------------------------------------------------------------------
def test_a_look_up_shows_subsets_splits_sizes_licence_and_first_rows(
    hub: Hub, served: dict[str, Path], client: TestClient
) -> None:
    card = client.post("/fork/data/lookup", json={"source": TALKS}).json()
    assert (card["here"], card["licence"], card["subset"], card["problem"]) == (False, "cc-by-4.0", "meals", None)
    sizes = {file.relative_to(served[TALKS]).as_posix(): file.stat().st_size for file in served[TALKS].rglob("*.*")}
    parts = sizes["meals/part-1.jsonl"] + sizes["meals/part-2.jsonl"]
    assert card["subsets"] == [
        {
            "name": "meals",
            "splits": [
                {"name": "train", "files": 2, "bytes": parts},
                {"name": "test", "files": 1, "bytes": sizes["meals/held.csv"]},
            ],
        },
        {"name": "beds", "splits": [{"name": "train", "files": 1, "bytes": sizes["beds/all.parquet"]}]},
    ]
    assert card["bytes"] == parts + sizes["meals/held.csv"] and card["done_bytes"] == 0
    assert [row["text"] for row in card["rows"]] == [f"meal number {n} was good" for n in range(4)]
    assert any("talks.py is not run" in note for note in card["notes"])
    held = client.post("/fork/data/lookup", json={"source": TALKS, "split": "test"}).json()
    assert [row["text"] for row in held["rows"]] == ["warm soup", "cold soup"]
    beds = client.post("/fork/data/lookup", json={"source": f"hub:{TALKS}", "subset": "beds"}).json()
    assert beds["rows"][0] == {"text": "bed number 0 was soft", "label": "0"}
    assert not any(request.path.endswith((".py", ".pkl")) for request in hub.requests)


@pytest.mark.parametrize("name", [WIDE, NAMED, PACKED])
def test_first_rows_of_a_large_file_fetch_its_beginning_only(
    name: str, hub: Hub, served: dict[str, Path], client: TestClient
) -> None:
    file = max(served[name].rglob("*train*"), key=lambda file: file.stat().st_size)
    card = client.post("/fork/data/lookup", json={"source": name}).json()
    assert len(card["rows"]) == 4 and card["notes"] == [], card["notes"]
    sent = sum(request.sent for request in hub.bytes_of(file.name))
    assert 0 < sent <= 3 * PIECE_BYTES < file.stat().st_size
    assert not any(entry.path.endswith(".zip") for entry in hub.requests)


def test_a_data_set_that_needs_its_script_is_refused(hub: Hub, client: TestClient) -> None:
    card = client.post("/fork/data/lookup", json={"source": SCRIPTED}).json()
    assert "scripted.py" in card["problem"] and "never run" in card["problem"] and card["rows"] == []
    answer = client.post("/fork/data/download", json={"source": SCRIPTED})
    assert answer.status_code == 422 and answer.json()["problems"][0]["field"] == "data.source"
    with pytest.raises(DataError, match="script"):
        download(SCRIPTED)
    assert not any(request.path.endswith((".py", ".bin")) for request in hub.requests)


@pytest.mark.parametrize(
    ("given", "field", "word"),
    [
        ({"source": "town/nothing"}, "data.source", "no data set"),
        ({"source": TALKS, "revision": "no-such"}, "data.revision", "no revision"),
        ({"source": "a b"}, "data.source", "org/name"),
        ({"source": ""}, "data.source", "Type a data set"),
        ({"source": "/no/file"}, "data.source", "no file"),
        ({"source": TALKS, "subset": 3}, "data.subset", "text"),
    ],
)
def test_what_is_not_there_is_reported_at_its_field(
    hub: Hub, client: TestClient, given: dict[str, Any], field: str, word: str
) -> None:
    answer = client.post("/fork/data/lookup", json=given)
    problem = answer.json()["problems"][0]
    assert answer.status_code == 422 and problem["field"] == field and word in problem["message"]


def test_a_subset_that_is_not_there_is_reported_with_those_that_are(hub: Hub, client: TestClient) -> None:
    card = client.post("/fork/data/lookup", json={"source": TALKS, "subset": "chairs"}).json()
    assert "'chairs'" in card["problem"] and "beds, meals" in card["problem"] and len(card["subsets"]) == 2
    answer = client.post("/fork/data/download", json={"source": TALKS, "subset": "chairs"})
    assert answer.json()["problems"][0]["field"] == "data.subset"


# -- download ---------------------------------------------------------------------------------------------------------
def test_a_plan_sends_no_request_and_says_what_to_press(hub: Hub) -> None:
    given = {"data": {"source": TALKS, "max_seq_length": 32}}
    with pytest.raises(TuningError, match="not downloaded yet.*Look up.*--download") as refusal:
        plan_for(given)
    assert refusal.value.problems[0].field == "data.source" and hub.requests == []
    download(TALKS)
    requests_before = len(hub.requests)
    plan = plan_for(given)
    assert (plan.data.train_rows, plan.data.eval_rows) == (60, 2)
    assert plan_for({"data": {**given["data"], "revision": COMMIT}}).data.fingerprint == plan.data.fingerprint
    with pytest.raises(TuningError, match="'beds'.*not downloaded yet"):
        plan_for({"data": {**given["data"], "subset": "beds"}})
    with pytest.raises(TuningError, match="'other' here.*not downloaded yet"):
        plan_for({"data": {**given["data"], "revision": "other"}})
    assert len(hub.requests) == requests_before, "the hub was asked without a press"


def test_files_of_a_split_are_read_one_after_another(hub: Hub, tmp_path: Path) -> None:
    download(TALKS)
    train, held = texts(source=TALKS)
    assert train == [f"meal number {n} was good" for n in range(60)] and held == ["warm soup", "cold soup"]
    train, held = texts(source=f"hub:{TALKS}", split="test", eval_split="train")
    assert train == ["warm soup", "cold soup"] and len(held) == 60
    for wrong, field in (({"split": "dev"}, "data.split"), ({"eval_split": "train"}, "data.eval_split")):
        with pytest.raises(DataError) as refusal:
            texts(source=TALKS, **wrong)
        assert refusal.value.problems[0].field == field
    download(TALKS, "beds")
    train, held = texts(source=TALKS, subset="beds")
    assert len(train) == 18 and len(held) == 2
    fetched = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and "snapshots" in path.parts}
    assert fetched == {"part-1.jsonl", "part-2.jsonl", "held.csv", "all.parquet"}


def test_a_bad_row_of_several_files_is_reported_by_its_row(hub: Hub, served: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.jsonl").write_bytes(rows(0, 5))
    (folder / "train" / "b.jsonl").write_bytes(rows(5, 2) + b"{broken}\n" + rows(7, 1))
    hub.datasets["town/broken"] = folder
    download("town/broken")
    with pytest.raises(DataError, match="a.jsonl and 1 more: row 8 is not JSON"):
        texts(source="town/broken")
    train, held = texts(source="town/broken", bad_rows="skip")
    assert sorted(train + held) == [f"meal number {n} was good" for n in range(8)]


def test_the_hubs_own_copy_can_be_read(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "converted" / "plain"
    for split, rows_there in (("train", 9), ("test", 3)):
        (folder / split).mkdir(parents=True)
        (folder / split / "0000.parquet").write_bytes(parquet(0, rows_there))
    hub.datasets["town/converted"], hub.branches = folder.parent, (CONVERTED,)
    download("town/converted", None, CONVERTED)
    train, held = texts(source="town/converted", revision=CONVERTED)
    assert (len(train), len(held)) == (9, 3)


def test_cancel_keeps_what_came_and_the_next_press_goes_on(
    hub: Hub, client: TestClient, served: dict[str, Path]
) -> None:
    size = (served[NAMED] / "train.jsonl").stat().st_size
    hub.seconds_a_piece = 0.03
    assert client.post("/fork/data/lookup", json={"source": NAMED}).json()["download"] is None
    hub.requests.clear()
    assert client.post("/fork/data/download", json={"source": NAMED}).json()["state"] == "running"
    while client.get("/fork/data/download", params={"source": NAMED}).json()["done_bytes"] < 100_000:
        time.sleep(0.01)
    assert client.post("/fork/data/lookup", json={"source": NAMED}).json()["download"]["state"] == "running"
    assert client.post("/fork/data/cancel", json={"source": NAMED}).json()["state"] == "cancelled"
    with pytest.raises(DataError, match="not downloaded yet"):
        texts(source=NAMED)
    hub.seconds_a_piece = 0.0
    card = client.post("/fork/data/lookup", json={"source": NAMED}).json()
    assert 100_000 <= card["done_bytes"] < size and not card["here"]
    client.post("/fork/data/download", json={"source": NAMED})
    assert wait_for_download(client, f"/fork/data/download?source={NAMED}", "done")["done_bytes"] == card["bytes"]
    last = [request for request in hub.bytes_of("train.jsonl") if request.range and request.range.endswith("-")][-1]
    assert last.range == f"bytes={size - last.sent}-" and 0 < last.sent <= size - 100_000
    requests_before = len(hub.requests)
    card = client.post("/fork/data/lookup", json={"source": NAMED}).json()
    assert card["here"] and [entry["name"] for entry in card["subsets"][0]["splits"]] == ["train", "validation"]
    assert len(hub.requests) == requests_before, "what is here was asked for"
    assert len(texts(source=NAMED)[0]) == 20_000
    assert client.post("/fork/data/cancel", json={"source": TALKS}).status_code == 422
    assert client.get("/fork/data/download", params={"source": TALKS}).status_code == 404


def test_a_cut_line_is_taken_up_where_it_broke(hub: Hub, served: dict[str, Path]) -> None:
    hub.cut_after = 100_000
    download(NAMED)
    size = (served[NAMED] / "train.jsonl").stat().st_size
    first, second = hub.bytes_of("train.jsonl")
    assert first.range is None and second.range == f"bytes={first.sent}-" and first.sent + second.sent == size


def test_a_file_cut_short_in_the_cache_is_missing(hub: Hub) -> None:
    data = look_up_data(NAMED)
    download(NAMED)
    folder = fetch(data, None, lambda done: None, lambda: False)
    assert folder is not None
    os.truncate((folder / "train.jsonl").resolve(), 1000)
    with pytest.raises(DataError, match="1 of 2 files are missing"):
        texts(source=NAMED)


# -- gated ------------------------------------------------------------------------------------------------------------
def test_a_token_opens_a_gated_data_set_and_stays_nowhere(
    hub: Hub, client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    hub.gated_by = SECRET
    answers = [client.post("/fork/data/lookup", json={"source": TALKS})]
    shut = answers[0].json()
    assert shut["gated"] and shut["locked"] and shut["rows"] == [] and "token" in shut["problem"]
    assert shut["subsets"] and not any(request.authorized for request in hub.requests), "a token nobody typed was sent"
    answers.append(client.post("/fork/data/download", json={"source": TALKS}))
    assert "token" in wait_for_download(client, f"/fork/data/download?source={TALKS}", "failed")["message"]
    with_token = {"source": TALKS, "token": SECRET}
    answers += [client.post(f"/fork/data/{what}", json=with_token) for what in ("lookup", "download")]
    assert not answers[2].json()["locked"] and len(answers[2].json()["rows"]) == 4
    wait_for_download(client, f"/fork/data/download?source={TALKS}", "done")
    answers.append(client.post("/fork/data/lookup", json={"source": TALKS, "token": SECRET + "\n"}))
    assert answers[-1].status_code == 422
    assert len(texts(source=TALKS)[0]) == 60
    assert not any(SECRET in answer.text for answer in answers) and SECRET not in caplog.text
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


# -- runs -------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_command_line_downloads_only_when_asked_to_and_trains_on_it(hub: Hub, tmp_path: Path) -> None:
    cache = {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": SECRET}
    hub.gated_by = SECRET
    given = {"max_steps": 2, "micro_batch_size": 4, "gradient_accumulation_steps": 1, "eval": {"every": 1}}
    given |= {"data": {"source": TALKS, "max_seq_length": 16}}
    Settings.from_dict(given)

    def tuning(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tuning", *arguments],
            input=json.dumps(given),
            text=True,
            capture_output=True,
            env=dict(os.environ) | cache,
            cwd=ROOT,
            timeout=200,
        )

    refused = tuning("run", "-")
    problem = json.loads(refused.stdout)["problems"][0]
    assert refused.returncode == 2 and problem["field"] == "data.source" and "--download" in problem["message"]
    assert hub.requests == []
    done = tuning("run", "-", "--download", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["kind"] == "finished" and [entry["step"] for entry in events if entry["kind"] == "step"] == [1, 2]
    assert any(event["kind"] == "eval" for event in events)
    assert f"{TALKS}:" in done.stderr and SECRET not in done.stdout + done.stderr
    requests_before = len(hub.requests)
    assert tuning("run", "-").returncode == 0 and len(hub.requests) == requests_before
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_looking_up_imports_no_heavy_package(hub: Hub) -> None:
    code = (
        "import sys; from tuning.hub.data_sets import look_up_data\n"
        "from tuning.data.preview.first_rows import first_rows\n"
        f"print(len(first_rows(look_up_data({TALKS!r}), None, None)[0]), sorted({{'torch', 'datasets', 'transformers', "
        "'pandas'} & set(sys.modules)))"
    )
    env = dict(os.environ) | {"HF_HUB_OFFLINE": "0"}
    out = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "4 []"
