"""The routes of look-up and download: cards from disk and hub, progress, cancel; a token is in no answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from support.hub_server import SECRET, Hub, only_hub, refusing_address, wait_for_download
from support.routes import client_of
from support.tiny_models import tiny_model, tiny_tokenizer
from tuning.web.models import add_model_routes

NAME = "town/small-chat"
PROGRESS = f"/fork/models/download?model={NAME}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model("qwen3", tmp_path_factory.mktemp("served") / "small-chat", vocab_size=2048)
    tiny_tokenizer(folder, chat=True)
    return folder


@pytest.fixture
def hub(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with only_hub(monkeypatch, tmp_path / "cache", models={NAME: served}) as hub:
        yield hub


@pytest.fixture
def client() -> TestClient:
    return client_of(add_model_routes)


def test_a_card_of_what_is_here_asks_nobody(hub: Hub, client: TestClient, served: Path) -> None:
    for spec, source, tuned in (("tiny-town", "bundled", None), (str(served), "path", "chat")):
        card = client.post("/fork/models/lookup", json={"model": spec}).json()
        assert card["here"] and card["source"] == source and card["problem"] is None
        assert tuned is None or card["tuned"] == tuned
        assert [method["method"] for method in card["fits"]] == ["lora", "full"] and all(
            method["fits"] for method in card["fits"]
        )
    assert hub.requests == []


def test_from_look_up_to_download_and_back(hub: Hub, client: TestClient) -> None:
    card = client.post("/fork/models/lookup", json={"model": NAME}).json()
    assert (card["here"], card["architecture"], card["tuned"], card["licence"]) == (
        False,
        "qwen3",
        "chat",
        "apache-2.0",
    )
    assert card["done_bytes"] == 0 < card["bytes"] and card["max_positions"] == 64 and card["fits"]
    hub.seconds_a_piece = 0.05
    assert client.post("/fork/models/download", json={"model": NAME}).json()["state"] == "running"
    while client.get(PROGRESS).json()["done_bytes"] < 50_000:
        time.sleep(0.02)
    assert client.post("/fork/models/lookup", json={"model": NAME}).json()["download"]["state"] == "running"
    assert client.post("/fork/models/cancel", json={"model": NAME}).json()["state"] == "cancelled"
    hub.seconds_a_piece = 0.0
    card = client.post("/fork/models/lookup", json={"model": NAME}).json()
    assert not card["here"] and card["done_bytes"] >= 50_000
    client.post("/fork/models/download", json={"model": NAME})
    assert wait_for_download(client, PROGRESS, "done")["done_bytes"] == card["bytes"]
    assert client.post("/fork/models/lookup", json={"model": NAME}).json()["here"]


def test_a_token_opens_a_gated_model_and_is_in_no_answer(hub: Hub, client: TestClient, tmp_path: Path) -> None:
    hub.gated_by = SECRET
    answers = [client.post("/fork/models/lookup", json={"model": NAME})]
    assert answers[0].json()["locked"] and "token" in answers[0].json()["problem"]
    answers.append(client.post("/fork/models/download", json={"model": NAME}))
    assert answers[-1].status_code == 422
    with_token = {"model": NAME, "token": SECRET}
    answers += [client.post(f"/fork/models/{what}", json=with_token) for what in ("lookup", "download")]
    assert not answers[2].json()["locked"] and answers[3].json()["state"] == "running"
    wait_for_download(client, PROGRESS, "done")
    for wrong in ({"model": 3, "token": SECRET}, {"model": "nobody/none", "token": SECRET + "\n"}):
        answers.append(client.post("/fork/models/lookup", json=wrong))
        assert answers[-1].status_code == 422 and answers[-1].json()["problems"]
    assert not any(SECRET in answer.text for answer in answers)
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_no_hub_is_a_sentence(hub: Hub, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", refusing_address())
    answer = client.post("/fork/models/lookup", json={"model": NAME})
    assert answer.status_code == 422 and "not reached" in answer.json()["problems"][0]["message"]
    assert client.get("/fork/models/download", params={"model": "town/other"}).status_code == 404
    assert client.post("/fork/models/cancel", json={"model": "town/other"}).status_code == 422
