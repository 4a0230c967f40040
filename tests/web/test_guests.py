"""A class on one server: each browser sees and changes its own runs, and reads its own uploads and what is named."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Route

from support.quick_runs import SMALL, quick_job
from tuning.core.errors import DataError, ModelError, TuningError
from tuning.core.paths import asset_path
from tuning.core.visitor import Visitor, acting_for
from tuning.data.locate import find_data_files
from tuning.models.base_model import open_folder, resolve_model
from tuning.plan.plan import plan_for
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.settings.schema import DataSettings
from tuning.web import add_routes
from tuning.web.serving import Keys, Serving

KEYS = Keys("a-token-of-the-tests-1")
ROWS = '{"text": "a secret line"}\n' * 20


class Class:
    """A server for a class, its holder's client and those of two browsers."""

    def __init__(self, home: Path, data: Path, models: Path) -> None:
        self.service = RunService(home, ThreadExecutor(quick_job))
        self.serving = Serving(keys=KEYS, guests=True, data=(data.resolve(),), models=(models.resolve(),))
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        add_routes(self.app, self.service, self.serving)
        self.holder, self.anna, self.ben = self.by(KEYS.holder), self.by(KEYS.guest), self.by(KEYS.guest)

    def by(self, key: str) -> TestClient:
        client = TestClient(self.app, raise_server_exceptions=False)
        client.get(f"/fork/live?token={key}")
        return client


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Class]:
    for name in ("data", "models", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(ROWS)
    room = Class(tmp_path / "home", tmp_path / "data", tmp_path / "models")
    yield room
    room.service.close()


def started(client: TestClient, **more: Any) -> str:
    answer = client.post("/fork/runs", json={"settings": {**SMALL, **more}})
    assert answer.status_code == 201, answer.text
    return answer.json()["run_id"]


def seen(client: TestClient, cursor: str = "") -> set[str]:
    """Runs that a browser is told of."""
    answer = client.get(f"/fork/live?cur={cursor}").json()
    return {run["run_id"] for run in answer["runs"]} | set(answer["points"]) | set(answer["progress"])


def uploaded(client: TestClient, text: str = ROWS) -> str:
    answer = client.post("/fork/data/upload?name=rows.jsonl", content=text.encode())
    assert answer.status_code == 201, answer.text
    return answer.json()["path"]


# -- runs -------------------------------------------------------------------------------------------------------------
def test_each_browser_sees_its_own_runs_and_the_holder_all(room: Class) -> None:
    own = {name: started(client) for name, client in (("h", room.holder), ("a", room.anna), ("b", room.ben))}
    for run in own.values():
        room.service.wait(run, 20)
    cursor = ",".join(f"{run}:0" for run in own.values())
    assert seen(room.anna, cursor) == {own["a"]}
    assert seen(room.ben, cursor) == {own["b"]}
    assert seen(room.holder, cursor) == set(own.values())
    owners = {row.run_id: row.owner for row in room.service.runs()}
    assert owners[own["h"]] is None and len({*owners.values()}) == 3


def test_no_route_of_a_run_answers_a_stranger(room: Class) -> None:
    run, other = started(room.anna), started(room.ben, max_steps=100_000)
    room.service.wait(run, 20)
    routes = [route for route in room.app.routes if isinstance(route, Route) and "{run_id}" in route.path]
    actions = ("stop", "pause", "resume", "go_on", "delete", "undelete", "purge", "rename", "note")
    paths = {(method, route.path) for route in routes for method in route.methods or ()}
    paths |= {("POST", f"/fork/runs/{{run_id}}/{action}") for action in actions}
    assert len(paths) >= 15
    messages = {room.anna.get("/fork/runs/none/settings").json()["message"].replace("none", run)}
    for method, path in sorted(paths):
        address = path.replace("{run_id}", run).replace("{action}", "stop")
        answer = room.ben.request(
            method, address, json={"name": "taken", "prompts": ["x"]} if method == "POST" else None
        )
        assert answer.status_code == 404, (method, address, answer.text)
        assert answer.json()["message"] in messages, "it tells that there is such a run"
    assert room.anna.post(f"/fork/runs/{other}/stop").status_code == 404 and room.service.run(other).active
    assert room.ben.post("/fork/runs", json={"settings": SMALL, "parent": run, "from_step": 1}).status_code == 404
    row = room.service.run(run)
    assert row.deleted is None and row.name != "taken"
    assert room.holder.post(f"/fork/runs/{other}/stop").status_code == 200, "the holder of the token may"


def test_a_browser_sees_what_its_own_runs_take_on_the_disk(room: Class) -> None:
    room.service.wait(started(room.ben), 60)
    mine = started(room.anna)
    room.service.wait(mine, 60)
    uploaded(room.ben)
    disks = {name: getattr(room, name).get("fork/disk").json() for name in ("anna", "holder")}
    assert (disks["anna"]["runs"]["count"], disks["anna"]["uploads"]["count"]) == (1, 0)
    assert (disks["holder"]["runs"]["count"], disks["holder"]["uploads"]["count"]) == (2, 1)
    assert disks["anna"]["free"] is None and disks["holder"]["free"] > 0
    assert room.anna.post(f"/fork/runs/{mine}/delete").status_code == 200
    assert room.anna.get("/fork/disk").json()["deleted"]["count"] == 1
    assert room.ben.get("/fork/disk").json()["deleted"]["count"] == 0


@pytest.mark.parametrize("which", ["", "/best"])
@pytest.mark.parametrize("path", ["/fork/estimate", "/fork/memory", "/fork/data/preview", "/fork/runs"])
def test_the_result_of_a_stranger_is_no_base_model(room: Class, path: str, which: str) -> None:
    run = started(room.anna)
    room.service.wait(run, 20)
    settings = {**SMALL, "model": f"run:{run}{which}"}
    body = {"settings": settings} if path == "/fork/runs" else settings
    answer = room.ben.post(path, json=body)
    (problem,) = answer.json()["problems"]
    assert problem["field"] == "model" and "There is no run" in problem["message"]


def test_a_browser_keeps_its_runs_when_the_server_has_a_new_token(room: Class) -> None:
    run = started(room.anna)
    new = Keys("the-token-of-the-next-start")
    app = FastAPI()
    add_routes(app, room.service, Serving(keys=new, guests=True))
    later = TestClient(app)
    later.cookies = room.anna.cookies
    assert later.get("/fork/live").status_code == 403
    later.get(f"/fork/live?token={new.guest}")
    assert seen(later) == {run}


def test_the_second_address_opens_nothing_where_there_is_no_class(room: Class) -> None:
    app = FastAPI()
    add_routes(app, room.service, Serving(keys=KEYS))
    client = TestClient(app)
    assert client.get(f"/fork/live?token={KEYS.guest}").status_code == 403
    first, second = TestClient(app), TestClient(app)
    for browser in (first, second):
        browser.get(f"/fork/live?token={KEYS.holder}")
    assert started(first) in seen(second), "on this machine all is one owner's"


def test_what_an_owner_is_called_opens_nothing(room: Class) -> None:
    started(room.anna)
    (row,) = room.service.runs()
    name = next(name for name in room.anna.cookies if name.endswith("-owner"))
    stranger = TestClient(room.app, cookies={name: str(row.owner)}, headers={"Authorization": f"Bearer {KEYS.guest}"})
    assert seen(stranger) == set()


def test_start_stop_and_delete_are_logged_with_owner_and_run(room: Class, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tuning")
    run = started(room.anna, max_steps=100_000)
    room.holder.post(f"/fork/runs/{run}/stop")
    room.service.wait(run, 20)
    room.anna.post(f"/fork/runs/{run}/delete")
    room.anna.post(f"/fork/runs/{run}/undelete")
    owner = room.service.run(run).owner
    lines = [record.getMessage() for record in caplog.records if record.name == "tuning.runs.service"]
    assert lines == [
        f"start {run} by browser {owner}",
        f"stop {run} by the holder",
        f"delete {run} by browser {owner}",
        f"undelete {run} by browser {owner}",
    ]


# -- files ------------------------------------------------------------------------------------------------------------
def body_of(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The body of a request about these settings."""
    if path == "/fork/runs":
        return {"settings": settings}
    if path == "/fork/data/lookup":
        return {"source": settings["data"]["source"]}
    return settings


DATA_ROUTES = [
    "/fork/estimate",
    "/fork/memory",
    "/fork/data/preview",
    "/fork/data/facts",
    "/fork/data/lookup",
    "/fork/runs",
]
MODEL_ROUTES = ["/fork/estimate", "/fork/memory", "/fork/data/preview", "/fork/models/lookup", "/fork/runs"]


@pytest.mark.parametrize("path", DATA_ROUTES)
def test_a_browser_reads_uploads_and_named_folders_and_no_other_file(room: Class, tmp_path: Path, path: str) -> None:
    data = tmp_path / "data"
    (data / "out.jsonl").symlink_to(tmp_path / "elsewhere" / "rows.jsonl")
    (data / "folder").mkdir()
    (data / "folder" / "train.jsonl").symlink_to(tmp_path / "elsewhere" / "rows.jsonl")
    run = started(room.anna)
    room.service.wait(run, 20)
    forbidden = [
        "/etc/shadow",
        "/etc/no-such-file",
        "path:/etc/passwd",
        str(tmp_path / "elsewhere" / "rows.jsonl"),
        str(tmp_path / "elsewhere"),
        str(data / ".." / "elsewhere" / "rows.jsonl"),
        str(data / "out.jsonl"),
        str(data / "folder"),
        str(data) + "-other/rows.jsonl",
        "~/rows.jsonl",
        "./README.md",
        str(tmp_path / "models" / "rows.jsonl"),
        uploaded(room.anna),
        uploaded(room.holder),
        str(room.service.home / "runs" / run / "settings.json"),
        str(room.service.home / "runs.sqlite"),
    ]
    for source in forbidden:  # what the holder has had read is kept in mind, and not for others
        room.holder.post(path, json=body_of(path, {**SMALL, "data": {"source": source}}))
        answer = room.ben.post(path, json=body_of(path, {**SMALL, "data": {"source": source}}))
        (problem,) = answer.json()["problems"]
        assert problem["field"] == "data.source" and "--data DIR" in problem["message"], (source, problem)
        assert "secret" not in answer.text and "root:" not in answer.text
        assert answer.status_code == 422
    for source in (uploaded(room.ben), str(data / "rows.jsonl"), "reviews"):
        answer = room.ben.post(path, json=body_of(path, {**SMALL, "data": {"source": source}}))
        assert answer.status_code in (200, 201) and not answer.json().get("problems"), (source, answer.text)


@pytest.mark.parametrize("path", MODEL_ROUTES)
def test_a_browser_opens_named_models_and_no_others(room: Class, tmp_path: Path, path: str) -> None:
    bundled = asset_path("models", "tiny-town")
    for name in ("models/mine", "elsewhere/secret"):
        shutil.copytree(bundled, tmp_path / name)
    (tmp_path / "models" / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    shutil.copytree(bundled, tmp_path / "models" / "mixed")
    (tmp_path / "models" / "mixed" / "tokenizer.json").unlink()
    (tmp_path / "models" / "mixed" / "tokenizer.json").symlink_to(tmp_path / "elsewhere" / "secret" / "tokenizer.json")
    for name in ("elsewhere/secret", "models/link", "models/mixed", "data", "models/../elsewhere/secret"):
        model = str(tmp_path / name)
        body = {"model": model} if path == "/fork/models/lookup" else body_of(path, {**SMALL, "model": model})
        room.holder.post(path, json=body)  # what is kept in mind of it is not for others
        problems = room.ben.post(path, json=body).json()["problems"]
        assert [problem["field"] for problem in problems] == ["model"] and "--models DIR" in problems[0]["message"], (
            name
        )
    for model in (str(tmp_path / "models" / "mine"), "tiny-town"):
        body = {"model": model} if path == "/fork/models/lookup" else body_of(path, {**SMALL, "model": model})
        answer = room.ben.post(path, json=body)
        assert answer.status_code in (200, 201) and not answer.json().get("problems"), answer.text


def test_an_index_of_passages_is_a_path_too(room: Class, tmp_path: Path) -> None:
    settings = {"method": {"name": "retrieval", "index": str(tmp_path / "elsewhere" / "rows.jsonl")}}
    answer = room.ben.post("/fork/estimate", json=settings | {"data": {"source": "people-questions"}})
    assert "method.index" in {problem["field"] for problem in answer.json()["problems"]}, answer.text
    assert "--data DIR" in answer.text


def test_what_was_downloaded_is_read_only_where_its_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repo = tmp_path / "hub" / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(asset_path("models", "tiny-town"), repo / "snapshots" / commit)
    monkeypatch.setattr("tuning.models.base_model.cache_folder", lambda: tmp_path / "hub")
    assert resolve_model("org/name").source == "hub"
    with acting_for(Visitor(owner="anna")), pytest.raises(ModelError, match="--models DIR"):
        resolve_model("org/name")
    with acting_for(Visitor(owner="anna", models=((tmp_path / "hub").resolve(),))):
        assert resolve_model("org/name").source == "hub"


def test_the_hub_is_asked_by_the_holder_only(room: Class) -> None:
    for kind, body in (("models", {"model": "org/name"}), ("data", {"source": "org/name"})):
        for action in ("lookup", "download", "cancel"):
            answer = room.ben.post(f"/fork/{kind}/{action}", json=body)
            assert answer.status_code == 422 and "whoever started this server" in answer.text, (kind, action)


def test_uploads_of_two_browsers_lie_apart(room: Class) -> None:
    first, second, own = uploaded(room.anna), uploaded(room.ben), uploaded(room.holder)
    assert len({first, second, own}) == 3
    assert Path(own).parent.parent == room.service.home / "uploads"


# -- what is no file, whoever asks ------------------------------------------------------------------------------------
@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="there is no /proc here")
@pytest.mark.parametrize("source", ["/proc/kmsg", "/proc/self/environ", "/proc", "/sys/kernel/uevent_helper"])
def test_what_lies_in_proc_is_refused_without_being_opened(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("builtins.open", lambda *given, **more: opened.append(given))
    monkeypatch.setattr("os.open", lambda *given, **more: opened.append(given))
    with pytest.raises(DataError, match="may never end"):
        find_data_files(DataSettings(source=source))
    assert opened == []


def test_a_link_to_what_lies_in_proc_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").symlink_to("/proc/kmsg")
    for source in (tmp_path, tmp_path / "train.jsonl"):
        with pytest.raises(DataError, match="may never end"):
            find_data_files(DataSettings(source=str(source)))


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="there is no /proc here")
@pytest.mark.timeout(60)
def test_an_index_in_proc_is_refused_without_being_opened() -> None:
    settings = {"method": {"name": "retrieval", "index": "/proc/kmsg"}, "data": {"source": "people-questions"}}
    with pytest.raises(TuningError, match="may never end"):
        plan_for(settings)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "tokenizer.json", "added_tokens.json"])
def test_a_pipe_in_a_model_folder_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(asset_path("models", "tiny-town"), tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} of .* is a pipe or a device"):
        open_folder(folder, str(folder), "path", "model")


@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_no_rows(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    for source in (str(tmp_path / "rows.jsonl"), "/dev/zero", "/dev/stdin"):
        with pytest.raises(TuningError):
            find_data_files(DataSettings(source=source))


def test_a_store_from_before_owners_is_the_holders(tmp_path: Path) -> None:
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    run = service.start(SMALL)
    service.wait(run, 20)
    service.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "runs.sqlite") as db:  # as the second version had it
        for (index,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall():
            db.execute(f"DROP INDEX {index}")
        for column in ("owner", "changed", "timed_as", "rate"):
            db.execute(f"ALTER TABLE runs DROP COLUMN {column}")
        for table in ("sources", "removed"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 2")
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    try:
        assert [row.owner for row in service.runs()] == [None]
        with acting_for(Visitor(owner="anna")):
            assert service.runs() == [] and json.dumps(service.store.series_after({run: 0})) == "{}"
            assert service.store.events(run) == []
    finally:
        service.close()
