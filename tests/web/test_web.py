"""The routes under /fork/: what they answer, and what they refuse."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.quick_runs import SMALL, quick_job, until
from tuning.runs.events import Emitter
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.web import add_routes
from tuning.web.requests import BODY_LIMIT


@pytest.fixture
def service(tmp_path):
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    yield service
    service.close()


@pytest.fixture
def client(service):
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service)
    return TestClient(app, raise_server_exceptions=False)


def started(client, **more):
    answer = client.post("/fork/runs", json={"settings": {**SMALL, **more}})
    assert answer.status_code == 201, answer.text
    return answer.json()["run_id"]


def fields(answer):
    assert answer.status_code == 422, answer.text
    problems = answer.json()["problems"]
    assert all(set(problem) == {"field", "value", "limit", "message"} and problem["message"] for problem in problems)
    return [problem["field"] for problem in problems]


def test_estimate(client):
    answer = client.post("/fork/estimate", json={}).json()
    assert answer["total_bytes"] == sum(answer["parts"].values())
    assert answer["derived"]["effective_batch"] == {"value": 32, "origin": "32 = 4 x 8 x 1"}
    assert answer["seconds"] is None
    bad = {"micro_batch_size": 0, "seed": "x"}
    assert fields(client.post("/fork/estimate", json=bad)) == ["micro_batch_size", "seed"]
    assert fields(client.post("/fork/estimate?device=abacus", json={}))
    here = client.post("/fork/estimate", json={}).json()["device_bytes"]
    assert client.post("/fork/estimate?device=nonsense", json={}).status_code == 422
    assert here > 0


def test_a_run_is_followed_by_cursor(client, service):
    run_id = started(client)
    service.wait(run_id, 20)
    first = client.get(f"/fork/live?cur={run_id}:0").json()
    (row,) = first["runs"]
    assert (row["run_id"], row["state"], row["total_steps"]) == (run_id, "finished", 3)
    assert row["settings"]["method"]["name"] == "lora" and row["plan"]["derived"]["effective_batch"] == 32
    points = first["points"][run_id]
    assert [point["step"] for point in points["step"]] == [1, 2, 3]
    again = client.get(f"/fork/live?cur={run_id}:{points['id']}&v={first['version']}&epoch={first['epoch']}").json()
    assert "runs" not in again and again["points"][run_id]["step"] == [] and again["progress"] == {}
    client.post(f"/fork/runs/{run_id}/rename", json={"name": "other"})
    changed = client.get(f"/fork/live?v={first['version']}").json()
    assert changed["runs"][0]["name"] == "other" and changed["points"] == {}


ODD_CURSORS = ["", ",", ":", "nobody:3", "r0001", "r0001:-1", "r0001:9" + "9" * 30, "../x:1", "%00:1"]


@pytest.mark.parametrize("cursor", ODD_CURSORS)
def test_stale_or_odd_cursors_do_no_harm(client, cursor):
    assert client.get(f"/fork/live?cur={cursor}").status_code == 200


@pytest.mark.slow
def test_a_hundred_thousand_points_are_capped_then_incremental(client, service):
    run_id = started(client)
    service.wait(run_id, 20)
    emit = Emitter(run_id, 2, service.store.append)
    for step in range(1, 100_001):
        emit("step", step=step, loss=1.0 / step, seconds=0.1, input_tokens=1)
    service.store.flush()
    first = client.get(f"/fork/live?cur={run_id}:0").json()["points"][run_id]
    assert 1_000 < len(first["step"]) <= 2_000 and first["step"][-1]["step"] == 100_000
    emit("step", step=100_001, loss=0.0)
    service.store.flush()
    begun = time.perf_counter()
    answer = client.get(f"/fork/live?cur={run_id}:{first['id']}&v={service.store.list_version()}")
    assert [point["step"] for point in answer.json()["points"][run_id]["step"]] == [100_001]
    assert len(answer.content) < 1_000 and time.perf_counter() - begun < 1.0


def test_stop_and_the_rest_of_the_buttons(client, service):
    run_id = started(client, max_steps=100_000)
    until(lambda: service.run(run_id).step > 0)
    assert client.get("/fork/live").json()["progress"][run_id]["state"] == "running"
    for action in ("pause", "resume", "stop", "stop"):
        assert client.post(f"/fork/runs/{run_id}/{action}").status_code == 200
    assert service.wait(run_id, 10) == "cancelled"
    assert client.post(f"/fork/runs/{run_id}/note", json={"note": "<b>x</b>"}).status_code == 200
    assert client.get("/fork/live").json()["runs"][0]["note"] == "<b>x</b>"
    assert client.post(f"/fork/runs/{run_id}/delete").status_code == 200
    assert client.get("/fork/live").json()["runs"] == []
    assert client.post(f"/fork/runs/{run_id}/undelete").status_code == 200
    assert len(client.get("/fork/live").json()["runs"]) == 1
    assert client.post(f"/fork/runs/{run_id}/explode").status_code == 404
    assert fields(client.post(f"/fork/runs/{run_id}/rename", json={"name": ""})) == ["name"]
    assert fields(client.post(f"/fork/runs/{run_id}/rename", json={"nam": "x"})) == ["nam"]
    assert fields(client.post(f"/fork/runs/{run_id}/ask", json={"prompts": []}))
    assert fields(client.post(f"/fork/runs/{run_id}/ask", json={"prompts": ["x"]})) == ["run"], "it saved nothing"


def test_settings_and_files_come_back(client, service):
    run_id = started(client, seed=7)
    service.wait(run_id, 20)
    settings = client.get(f"/fork/runs/{run_id}/settings").json()
    assert settings["seed"] == 7
    assert client.post("/fork/runs", json={"settings": settings, "parent": run_id}).status_code == 201
    answer = client.get(f"/fork/runs/{run_id}/files.zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert sorted(packed.namelist()) == ["adapter/adapter_config.json", "settings.json"]
        assert json.loads(packed.read("settings.json")) == settings


def test_what_is_not_there(client):
    for path in ("fork/runs/nobody/settings", "fork/runs/no/files.zip", "fork/static/no.js", "docs", "openapi.json"):
        assert client.get("/" + path).status_code == 404
    for action in ("stop", "delete", "rename", "ask"):
        answer = client.post(f"/fork/runs/nobody/{action}", json={})
        assert answer.status_code == 404 and "nobody" in answer.json()["message"]
    assert client.post("/fork/runs", json={"settings": {}, "parent": "nobody"}).status_code == 404


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"a": ' + b" " * BODY_LIMIT + b"1}"])
def test_odd_bodies(client, body):
    assert fields(client.post("/fork/runs", content=body)) == ["body"]


def test_odd_members(client):
    assert fields(client.post("/fork/runs", json={"settings": {}, "color": "red"})) == ["color"]
    assert fields(client.post("/fork/runs", json={"settings": []}))
    assert fields(client.post("/fork/runs", json={"settings": SMALL, "name": 3})) == ["name"]
    assert fields(client.post("/fork/runs", json={"settings": SMALL, "from_step": 3})) == ["from_step"]


def test_the_page_is_refused_without_an_error_in_its_console(client):
    """A browser shows an answer of 422 in red; programs still get it."""
    wrong = {"micro_batch_size": 0}
    for path, body, status in (
        ("/fork/estimate", wrong, 422),
        ("/fork/data/preview", wrong | {"data": 3}, 422),
        ("/fork/settings", wrong, 422),
        ("/fork/runs/r9999/go_on", {}, 404),
    ):
        program = client.post(path, json=body)
        page = client.post(path, json=body, headers={"tuning-fork-page": "1"})
        assert (program.status_code, page.status_code) == (status, 200), path
        assert "tuning-fork-refused" not in program.headers
        assert page.headers["tuning-fork-refused"] == str(status) and page.json() == program.json()
    assert "tuning-fork-refused" not in client.post("/fork/estimate", json={}).headers


def test_cells_are_shown_as_the_file_has_them(client, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "tags": ["a", "é"], "of": {"k": [1, null]}, "good": true}\n' * 3, encoding="utf-8")
    shown = client.post("/fork/data/preview", json={"data": {"source": str(file)}}).json()
    assert shown["rows"][0]["cells"] == {"text": "a", "tags": '["a", "é"]', "of": '{"k": [1, null]}', "good": "true"}


def test_a_script_that_the_browser_has_is_not_sent_again(client):
    path = "/fork/static/page/chart.js"
    first = client.get(path)
    tag = first.headers["etag"]
    for etag in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), etag
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_static_files_and_no_others(client):
    script = client.get("/fork/static/page.js", headers={"accept-encoding": "gzip"})
    assert script.status_code == 200 and script.headers["cache-control"] == "no-cache"
    assert script.headers["content-type"].startswith("text/javascript")
    plotly = client.get("/fork/static/vendor/plotly-basic.min.js", headers={"accept-encoding": "gzip"})
    assert plotly.headers["content-encoding"] == "gzip" and "max-age" in plotly.headers["cache-control"]
    refused = ("../pyproject.toml", "%2e%2e/pyproject.toml", "page/../../README.md", "models/tiny-town/config.json")
    for path in (*refused, "page/shapes.d.ts"):
        assert client.get(f"/fork/static/{path}").status_code == 404


def test_both_builds_of_plotly_are_served_in_one_version(client):
    """The basic one is vendored, the full one comes with the installed package: they must draw alike."""
    heads = [client.get(f"/fork/static/vendor/{name}.min.js").text[:200] for name in ("plotly-basic", "plotly")]
    versions = [re.search(r"plotly\.js (?:\(basic - minified\) )?(v[\d.]+)", head) for head in heads]
    assert versions[0] and versions[1] and versions[0][1] == versions[1][1]


def test_foreign_origins_and_hosts_are_refused(client, service):
    body = {"settings": SMALL}
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
        assert client.post("/fork/runs", json=body, headers={"origin": origin}).status_code == 403
    assert service.runs() == []
    assert client.post("/fork/runs", json=body, headers={"origin": "http://127.0.0.1"}).status_code == 201
    assert client.get("/fork/live", headers={"host": "evil.example"}).status_code == 400
