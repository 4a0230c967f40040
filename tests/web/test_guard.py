"""Who is let in: the printed token, the names of the server, no other site; over every route there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from support.quick_runs import SMALL, quick_job
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.ui.page import build_app
from tuning.web import add_routes
from tuning.web.serving import Keys, Serving

KEY = "a-token-of-the-tests-1"
SENTENCE = "This page opens at the address that Tuning Fork printed"
PLACE = re.compile(r"\{[^}]*\}")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The whole app with the form and everything of Gradio, as it is served."""
    service = RunService(tmp_path_factory.mktemp("home"), ThreadExecutor(quick_job))
    yield build_app(service, "127.0.0.1", 7860, Serving(keys=Keys(KEY), guests=True))
    service.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home", ThreadExecutor(quick_job))
    yield service
    service.close()


def client_of(service: RunService, **more: Any) -> TestClient:
    """The routes behind a guard with the token of these tests."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service, Serving(**({"keys": Keys(KEY)} | more)))
    return TestClient(app, raise_server_exceptions=False)


def calls(routes: Any, before: str = "") -> list[tuple[str, str]]:
    """Method and path of each route, those of mounted apps too."""
    methods_and_paths = []
    for route in routes:
        if isinstance(route, Mount):
            methods_and_paths += calls(route.routes, before + route.path.rstrip("/"))
        elif hasattr(route, "original_router"):  # a router that another app includes
            methods_and_paths += calls(route.original_router.routes, before)
        else:
            path = before + PLACE.sub("r0001", route.path)
            methods_and_paths += [(method, path) for method in sorted(getattr(route, "methods", None) or {"GET"})]
    return methods_and_paths


def test_every_route_is_behind_the_token_and_health_alone_is_open(app: FastAPI) -> None:
    app_calls = calls(app.routes)
    assert {("GET", "/config"), ("POST", "/gradio_api/queue/join"), ("GET", "/fork/live"), ("POST", "/fork/runs")} <= {
        *app_calls
    }
    assert len(app_calls) > 80
    client = TestClient(app)
    for method, path in [*app_calls, ("GET", "/nothing-here"), ("POST", "/gradio_api/run/predict")]:
        answer = client.request(method, path, follow_redirects=False)
        assert answer.status_code == (200 if path == "/fork/health" else 403), (method, path)
        assert "set-cookie" not in answer.headers
    assert client.get("/fork/health").json() == {"status": "ok"}


def test_the_token_becomes_a_cookie_and_leaves_the_address(service: RunService) -> None:
    client = client_of(service)
    answer = client.get(f"/fork/live?cur=r0001:0&token={KEY}&v=3", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./live?cur=r0001:0&v=3")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    assert client.get("/fork/live").status_code == 200, "the cookie lets in from now on"
    again = client.get("/fork/live?token=one-of-last-week", follow_redirects=False)
    assert (again.status_code, again.headers["location"]) == (303, "./live"), "an old address leads in, by the cookie"


def test_odd_cookies_of_other_programs_do_no_harm(service: RunService) -> None:
    cookie = f'other={{"a": [1]}}; [x]=1; =; tuning-fork-80={KEY}; last'
    assert client_of(service).get("/fork/live", headers={"cookie": cookie}).status_code == 200


def test_no_path_leads_to_another_host(service: RunService) -> None:
    for path in ("//evil.example", "//evil.example/", "/\\evil.example", "///evil.example/x"):
        answer = client_of(service).get(f"http://127.0.0.1{path}?token={KEY}", follow_redirects=False)
        assert answer.headers["location"].startswith("./"), answer.headers["location"]


def test_a_program_gives_the_token_as_bearer(service: RunService) -> None:
    client = client_of(service)
    for header, code in ((f"Bearer {KEY}", 200), (f"bearer {KEY}", 200), ("Bearer x", 403), (f"Basic {KEY}", 403)):
        answer = client.get("/fork/live", headers={"Authorization": header})
        assert answer.status_code == code and "set-cookie" not in answer.headers, header


@pytest.mark.parametrize("token", ["", "x", KEY[:-1], KEY + "1", "%00", "%F0%9F%94%91", KEY.upper()])
def test_another_token_leads_to_the_sentence(service: RunService, token: str) -> None:
    answer = client_of(service).get(f"/?token={token}", follow_redirects=False)
    assert (
        answer.status_code == 403 and SENTENCE in answer.text and answer.headers["content-type"].startswith("text/html")
    )
    assert KEY not in answer.text and "<script" not in answer.text and "<link" not in answer.text


def test_the_cookie_of_a_server_before_leads_to_the_sentence(service: RunService) -> None:
    client = client_of(service)
    client.get(f"/?token={KEY}")
    restarted = client_of(service, keys=Keys("the-token-of-the-next-start"))
    restarted.cookies = client.cookies
    assert SENTENCE in restarted.get("/").text
    refused = restarted.get("/fork/live")
    assert refused.status_code == 403 and refused.json()["message"].startswith(SENTENCE)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("tuning.web.serving.hmac.compare_digest", lambda given, key: seen.append((given, key)) or False)
    assert Keys(KEY).role_of("guess") is None
    assert (b"guess", KEY.encode()) in seen


def test_a_key_for_the_browser_opens_once() -> None:
    keys = Keys(KEY)
    once = keys.one_time_key()
    assert (keys.role_of(once), keys.role_of(once), keys.role_of(KEY)) == ("holder", None, "holder")


def test_a_websocket_needs_the_token_too(app: FastAPI) -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/gradio_api/queue/join"):
        pass


def test_what_the_page_does_not_use_of_gradio_is_not_there(app: FastAPI) -> None:
    client = TestClient(app, headers={"Authorization": f"Bearer {KEY}"})
    body = {"data": [], "fn_index": 0, "session_hash": "x"}
    for path in ("queue/join", "call/look", "upload", "cancel", "vibe-edit", "run/look", "api/predict"):
        assert client.post(f"/gradio_api/{path}", json=body).status_code == 404, path
    for path in ("file=/etc/passwd", "queue/data?session_hash=x", "proxy=http://127.0.0.1:1/"):
        assert client.get(f"/gradio_api/{path}").status_code == 404, path
    assert client.get("/gradio_api/info").status_code == 200 and client.get("/").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"fn_index": 99999, "data": []}',
        '{"fn_index": 0, "data": []}',
        '{"fn_index": "\\ud800", "data": null}',
        '{"fn_index": 1, "data": ["\\ud800"]}',
        '{"fn_index": 0}',
        "[]",
    ],
)
def test_a_call_that_the_page_never_makes_is_refused_and_no_fault_of_the_server(app: FastAPI, body: str) -> None:
    client = TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False)
    answer = client.post("/gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text


def test_the_form_answers_for_the_browser_that_asks(app: FastAPI, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a secret line"}\n' * 20)
    answers = {}
    for key in (KEY, Keys(KEY).guest):
        client = TestClient(app, headers={"Authorization": f"Bearer {key}"})
        config = client.get("/config").json()
        values = {component["id"]: component["props"].get("value") for component in config["components"]}
        (source,) = (
            component["id"]
            for component in config["components"]
            if component["props"].get("elem_id") == "f-data-source"
        )
        event = next(event for event in config["dependencies"] if source in event["inputs"] and event["backend_fn"])
        values[source] = str(tmp_path / "rows.jsonl")
        body = {
            "data": [values[component] for component in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": "x",
        }
        answers[key] = client.post("/gradio_api/run/predict", json=body).text
    assert "--data DIR" not in answers[KEY] and '"problems":[]' in answers[KEY]
    assert "--data DIR" in answers[Keys(KEY).guest]


# -- names and other sites --------------------------------------------------------------------------------------------
def health(service: RunService, host: str, **more: Any) -> int:
    return client_of(service, **more).get("/fork/health", headers={"host": host}).status_code


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]", "[::1]:7860"])
def test_names_of_this_machine_are_let_in(service: RunService, host: str) -> None:
    assert health(service, host) == 200


@pytest.mark.parametrize(
    "host",
    ["testserver", "evil.example", "127.0.0.1.evil.example", "127.1", "2130706433", "", "0.0.0.0", "localhost:x"],
)
def test_other_names_are_refused(service: RunService, host: str) -> None:
    assert health(service, host) == 400


def test_a_name_that_was_allowed_is_let_in(service: RunService) -> None:
    names = frozenset({"fork.example"})
    assert health(service, "fork.example", names=names) == 200
    assert health(service, "sub.fork.example", names=names) == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8888", "http://localhost", "file://"]
)
def test_another_site_changes_nothing_by_its_origin(service: RunService, origin: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "origin": origin}
    assert client_of(service).post("/fork/runs", json={"settings": SMALL}, headers=headers).status_code == 403
    assert service.runs() == []


@pytest.mark.parametrize("site, code", [("cross-site", 403), ("same-site", 403), ("same-origin", 201), ("none", 201)])
def test_another_site_changes_nothing_by_what_the_browser_says(service: RunService, site: str, code: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "sec-fetch-site": site}
    navigation = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    client, body = client_of(service), {"settings": SMALL}
    assert client.post("/fork/runs", json=body, headers=headers).status_code == code
    assert client.post("/fork/runs", json=body, headers=headers | navigation).status_code == code


def test_another_site_may_link_to_the_page_and_take_nothing_else_of_it(service: RunService) -> None:
    client = client_of(service, keys=None)
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    frame = link | {"sec-fetch-dest": "iframe"}
    assert client.get("/fork/live", headers=link).status_code == 200
    for headers in (picture, frame, picture | {"sec-fetch-site": "same-site"}):
        assert client.get("/fork/live", headers=headers).status_code == 403
