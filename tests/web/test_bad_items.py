"""One bad item hurts only itself: values that no file, database or answer can hold are refused, the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tuning.core.errors import Problem, RunError, shown_value
from tuning.runs.events import Event
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.service import RunService
from tuning.runs.store import RunStore
from tuning.web import add_routes

HALF = "\ud800"
"""A lone surrogate: half of a character."""
SETTINGS = {"max_steps": 1, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "data": {"train_rows": 8}}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = RunStore(tmp_path)
    store.create_run("r1", "one", {}, {}, total_steps=4)
    yield store
    store.close()


def test_the_writer_lives_on_whatever_one_item_raises(store: RunStore) -> None:
    for name in (HALF, {"not": "text"}):
        with pytest.raises(RunError, match="cannot be stored"):
            store.rename("r1", name)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="cannot be stored"):
        store.create_run("r2", "two", {}, {}, parent="r1", from_step=10**26)
    store.rename("r1", "still here")
    assert store.run("r1").name == "still here"
    assert [row.run_id for row in store.runs()] == ["r1"], "nothing of the refused run is left"


def test_the_other_events_of_a_batch_are_stored(store: RunStore) -> None:
    def event(seq: int, kind: str, **data: Any) -> Event:
        return Event(run_id="r1", attempt=1, seq=seq, time=0.0, kind=kind, data=data)

    store.append(event(0, "step", step=1, loss=2.0))
    store.append(event(1, "step", step=10**30, loss=1.0))  # no column holds it
    store.append(event(2, "step", step=2, loss={1, 2}))  # nor JSON this
    store.append(event(3, "step", step=3, loss=0.5))
    store.append(event(4, "failed", step=3, message=f"a file named {HALF}"))
    store.flush()
    assert [event.data["step"] for event in store.events("r1", "step")] == [1, 3]
    assert (store.run("r1").state, store.run("r1").message) == ("failed", "a file named \\ud800")


@pytest.mark.parametrize(
    "value",
    [
        HALF,
        f"a{HALF}b",
        float("nan"),
        float("inf"),
        10**400,
        [float("nan"), HALF],
        {HALF: [10**30]},
        {1, 2},
        "x" * 9_999,
    ],
)
def test_a_refusal_can_be_sent_whatever_the_value_was(value: Any) -> None:
    plain = Problem(f"data.{HALF}", value, "a limit", f"{value!r:.99}{HALF}").to_dict()
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    assert len(text.encode("utf-8")) < 2_000
    assert json.loads(text)["field"] == "data.\\ud800"


def test_values_that_can_be_sent_are_sent_as_they_are() -> None:
    for value in ("Zürich 🙂", 8, 2.5, True, None, ["a", 1], {"a": {"b": [1]}}):
        assert shown_value(value) == value


@pytest.fixture
def client(tmp_path: Path) -> Any:
    service = RunService(tmp_path, InlineExecutor())
    app = FastAPI()
    add_routes(app, service)
    yield TestClient(app, raise_server_exceptions=False)
    service.close()


BAD: list[dict[str, Any]] = [
    {"data": {"system_prompt": HALF}},
    {"task": HALF},
    {"model": HALF},
    {"data": {"source": HALF}},
    {"data": {"label_names": ["a", HALF]}},
    {"data": {"columns": {"text": HALF}}},
    {"data": {"columns": {HALF: "text"}}},
    {"sample": {"prompts": [HALF]}},
    {HALF: 1},
    {"method": {"name": HALF}},
    {"method": {"name": "prompt_tuning", "init": "text", "init_text": HALF}},
    {"recipe": {"name": HALF}},
    {"optimizer": {"betas": [float("nan"), 0]}},
    {"optimizer": {"betas": [10**400, 0]}},
    {"schedule": {"warmup_steps": [float("nan")]}},
    {"data": {"columns": {"text": float("nan")}}},
    {"max_steps": 10**400},
    {"micro_batch_size": -(10**400)},
    {"optimizer": {"learning_rate": 10**400}},
    {"seed": 10**30},
    {"model": "x" * 5_000},
    {"model": "/" + "x" * 5_000},
    {"model": "a/b", "revision": "r" * 5_000},
    {"data": {"source": "a/" + "b" * 5_000}},
    {"data": {"source": "/" + "/a" * 5_000}},
    {"data": {"split": "s" * 5_000}},
    {"method": {"name": "retrieval", "index": "/" + "x" * 5_000}},
]


@pytest.mark.parametrize("settings", BAD, ids=lambda settings: ascii(settings)[:40])
def test_settings_that_no_file_can_hold_are_refused_at_their_field(
    client: TestClient, settings: dict[str, Any]
) -> None:
    for route, body in (("/fork/estimate", settings), ("/fork/runs", {"settings": settings})):
        answer = client.post(route, content=json.dumps(body))
        assert answer.status_code == 422, answer.text
        assert answer.json()["problems"][0]["message"]
    assert client.get("/fork/live").json()["runs"] == []


@pytest.mark.parametrize("name", [HALF, "x" * 81, "", 3, None, ["a"]])
def test_a_name_that_cannot_be_stored_is_refused_and_the_store_goes_on(client: TestClient, name: Any) -> None:
    run_id = client.post("/fork/runs", json={"settings": SETTINGS}).json()["run_id"]
    for action, member in (("rename", "name"), ("note", "note")):
        if member == "note" and name in ("", "x" * 81):
            continue
        answer = client.post(f"/fork/runs/{run_id}/{action}", content=json.dumps({member: name}))
        assert answer.status_code == 422 and answer.json()["problems"][0]["field"] == member
    assert client.post(f"/fork/runs/{run_id}/rename", json={"name": "fine"}).status_code == 200


@pytest.mark.parametrize("step", [10**26, -1, 1.5, "2", True, 2])
def test_a_step_that_the_parent_never_has_is_refused(client: TestClient, step: Any) -> None:
    run_id = client.post("/fork/runs", json={"settings": SETTINGS}).json()["run_id"]
    body = {"settings": SETTINGS, "parent": run_id, "from_step": step}
    answer = client.post("/fork/runs", content=json.dumps(body))
    assert answer.status_code == 422 and answer.json()["problems"][0]["field"] == "from_step"


@pytest.mark.parametrize("parent", [HALF, "r" * 5_000, "r0001'; --", 10**30, [HALF]])
def test_a_parent_that_no_run_can_be_is_not_found(client: TestClient, parent: Any) -> None:
    answer = client.post("/fork/runs", content=json.dumps({"settings": SETTINGS, "parent": parent}))
    assert answer.status_code == 404 and "no run" in answer.json()["message"]


def test_a_file_of_the_page_that_is_not_there_is_no_crash(client: TestClient) -> None:
    for path in ("page/nope.js", "vendor/nope.js", "page/../../../etc/passwd"):
        assert client.get(f"/fork/static/{path}").status_code == 404
