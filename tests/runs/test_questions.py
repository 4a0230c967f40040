"""Questions starve neither the server nor the training: their order, their limits, who left, what is never refused."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.method_matrix import MatrixJobs
from support.quick_runs import until
from support.routes import client_of
from tuning.core.errors import RunError
from tuning.runs import ask as asking
from tuning.runs.ask import MOST_OF_CLIENT, MOST_OF_RUN, TooManyQuestions
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.settings.schema import Settings
from tuning.text.question import Question
from tuning.web import add_routes
from tuning.web.ask import add_ask_routes
from tuning.web.results import add_result_routes

torch = pytest.importorskip("torch")
LONG = {"max_steps": 1_000_000, "eval": {"every": 100_000}, "schedule": {"name": "constant"}}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> MatrixJobs:
    return MatrixJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home")
    yield service
    service.close()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[RunService, threading.Event]]:
    """A service whose runs have begun and answer nothing until they are let."""
    let = threading.Event()

    def job(job: Any, emit: Any, commands: Any) -> str:
        emit("started", total_steps=1)
        while not commands.stopping and not let.wait(0.02):
            pass
        return "cancelled" if commands.stopping else "finished"

    service = RunService(tmp_path / "busy", ThreadExecutor(job))
    yield service, let
    service.close()


@contextmanager
def served(service: RunService) -> Iterator[int]:
    """The routes on a port, as over the wire."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    add_routes(app, service)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield port
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


def begin_to_ask(port: int, run_id: str, source: str, prompts: int = 64) -> http.client.HTTPConnection:
    """Send a long question from an address of this machine's own, and do not wait for its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(source, 0))
    body = json.dumps({"prompts": ["the red dog"] * prompts, "max_new_tokens": 512})
    connection.request("POST", f"/fork/runs/{run_id}/ask", body, {"content-type": "application/json"})
    return connection


def started(service: RunService, settings: dict[str, Any]) -> str:
    run_id = service.start(settings)
    until(lambda: service.run(run_id).step > 0 or service.run(run_id).ended)
    assert service.run(run_id).state == "running", service.run(run_id).message
    return run_id


def test_at_most_one_question_is_answered_between_two_updates(jobs: MatrixJobs, service: RunService) -> None:
    run_id = started(service, jobs.settings(**LONG))
    steps: list[int] = []
    service.pause(run_id)  # so that all wait at once
    until(lambda: service.run(run_id).state == "paused")
    handle = service._handles[run_id]
    commands = handle.commands
    taken = commands.take_tasks

    def none_yet(most: int | None = None) -> Any:
        return [] if commands.paused else taken(most)

    commands.take_tasks = none_yet  # type: ignore[method-assign]
    emit = handle.emit
    last = [0]

    def heard(_: dict[str, Any]) -> None:
        steps.append(last[0])

    store_append = emit._emitter._sink

    def sink(event: Any) -> None:
        if event.kind == "step":
            last[0] = event.data["step"]
        store_append(event)

    emit._emitter._sink = sink
    pending = [service.put_question(run_id, Question(["the red dog"], 1, chat=False), heard) for _ in range(5)]
    service.unpause(run_id)
    for answer in pending:
        assert set(answer.done.result(60)) == {"base", "trained"}
    assert len(set(steps)) == 5, f"each at a step of its own: {steps}"
    service.stop(run_id)


@pytest.mark.slow
def test_a_long_question_gives_the_training_back(
    jobs: MatrixJobs, service: RunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "HELD_SECONDS", 0.3)
    run_id = started(service, jobs.settings(**LONG))
    question = Question(["the red dog"] * 64, 120, chat=False)
    pending = service.put_question(run_id, question)
    with pytest.raises(RunError, match="may hold up training for 0 seconds, and this one takes longer"):
        pending.done.result(60)
    before = service.run(run_id).step
    until(lambda: service.run(run_id).step > before, 30)
    service.pause(run_id)
    until(lambda: service.run(run_id).state == "paused")
    assert len(service.ask(run_id, question)["trained"]) == 64, "a paused training is not held up"
    service.stop(run_id)


def test_stop_ends_an_answer_and_the_saved_weights_give_it(jobs: MatrixJobs, service: RunService) -> None:
    from tuning.training.compare import BaseAndTuned

    run_id = started(service, jobs.settings(**LONG))
    heard: list[dict[str, Any]] = []
    question = Question(["the red dog"] * 20, 100, chat=False)
    first = service.put_question(run_id, question, heard.append)
    second = service.put_question(run_id, question)
    until(lambda: len(heard) > 5)
    service.stop(run_id)
    assert service.wait(run_id, 5) == "cancelled"
    answers = first.done.result(60), second.done.result(60)
    row = service.run(run_id)  # loaded only now: no two threads may load a model at once
    saved = BaseAndTuned(service.result(run_id).parent, row.plan["model"]["path"], Settings.from_dict(row.settings))
    expected = saved.ask(question)
    assert answers == (expected, expected)
    index = heard.index({"again": True})
    pieces = [piece["text"] for piece in heard[index + 1 :] if (piece["side"], piece["index"]) == ("trained", 3)]
    assert "".join(pieces) == expected["trained"][3]


def test_a_merge_that_a_stop_ends_half_way_is_made_after_it(jobs: MatrixJobs, service: RunService) -> None:
    first = service.start(jobs.settings(max_steps=1, method={"name": "lora", "r": 4}))
    assert service.wait(first, 120) == "finished", service.run(first).message
    second = started(service, jobs.settings(**LONG))
    calls: list[int] = []

    def work(should_continue: Callable[[], bool], held: bool) -> str:
        from tuning.core.errors import check_stop

        calls.append(held)
        if len(calls) == 1:
            service.stop(second)
        check_stop(should_continue)
        return "made"

    assert service.executor.run_between_updates(work, 30) == "made" and calls == [True, False]
    assert service.wait(second, 10) == "cancelled"


def test_many_questions_do_not_keep_a_queued_run_waiting(tmp_path: Path) -> None:
    order: list[str] = []

    def job(job: Any, emit: Any, commands: Any) -> str:
        order.append(job.run_id)
        emit("started", total_steps=1)
        if job.run_id == "first":
            until(lambda: len(executor._tasks) == 6 and executor.queue_position("second") == 1)
        return "finished"

    from tuning.training.job import Job

    executor = ThreadExecutor(job)
    plan: Any = None
    try:
        executor.submit(Job(run_id="first", attempt=1, plan=plan, folder=""), lambda event: None)
        until(lambda: order == ["first"])
        tasks = [
            executor.submit_task(lambda should_continue, held, n=n: order.append(f"task {n}, {held}")) for n in range(6)
        ]
        second = executor.submit(Job(run_id="second", attempt=1, plan=plan, folder=""), lambda event: None)
        assert second.wait(30) == "finished"
        for task in tasks:
            task.done.result(30)
    finally:
        executor.close()
    assert order.index("second") == 2 and "task 0, True" in order and "task 5, False" in order, order


def test_one_run_and_one_client_have_a_limit_of_waiting_questions(busy: tuple[RunService, threading.Event]) -> None:
    service, let = busy
    run_id = service.start({})
    until(lambda: service.run(run_id).state == "running")
    question = Question(["the red dog"], 1)
    mine = [service.put_question(run_id, question, client="testclient") for _ in range(MOST_OF_CLIENT)]
    answer = client_of(add_ask_routes, service).post(f"/fork/runs/{run_id}/ask", json={"prompts": ["the red dog"]})
    assert answer.status_code == 429 and "questions of yours wait already" in answer.json()["message"]
    others = [service.put_question(run_id, question, client=str(n)) for n in range(MOST_OF_RUN - MOST_OF_CLIENT)]
    with pytest.raises(TooManyQuestions, match=f"{MOST_OF_RUN} questions wait"):
        service.put_question(run_id, question, client="another")
    mine[0].drop()
    others[0].drop()
    service.put_question(run_id, question, client="testclient").drop()
    assert service.put_question(run_id, question, client="another").done.cancelled() is False


def test_the_server_answers_while_45_questions_wait(busy: tuple[RunService, threading.Event]) -> None:
    """More than the 40 threads that all requests share."""
    service, _ = busy
    run_id = service.start({})
    until(lambda: service.run(run_id).state == "running")
    with served(service) as port:
        waiting = [begin_to_ask(port, run_id, f"127.0.0.{2 + i}") for i in range(45)]
        until(lambda: service._questions._runs[run_id] == 45)
        for path in (f"/fork/live?cur={run_id}:0", f"/fork/runs/{run_id}/samples"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", f"/fork/runs/{run_id}/stop", "{}")
        assert connection.getresponse().status == 200
        assert service.wait(run_id, 10) == "cancelled"
        for connection in waiting:
            answer = connection.getresponse()
            assert answer.status == 422 and "no weights to ask" in json.loads(answer.read())["message"]


def test_the_question_of_one_who_left_is_dropped(busy: tuple[RunService, threading.Event]) -> None:
    service, let = busy
    run_id = service.start({})
    until(lambda: service.run(run_id).state == "running")
    with served(service) as port:
        waiting = [begin_to_ask(port, run_id, f"127.0.0.{2 + i}") for i in range(3)]
        until(lambda: service._questions._runs[run_id] == 3)
        waiting[0].close()
        waiting[1].close()
        until(lambda: service._questions._runs[run_id] == 1, 10)


def test_what_is_being_written_for_one_who_left_ends(jobs: MatrixJobs, service: RunService) -> None:
    run_id = service.start(jobs.settings(max_steps=1))
    assert service.wait(run_id, 120) == "finished"
    with served(service) as port:
        connection = begin_to_ask(port, run_id, "127.0.0.1")
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.readline())["side"] == "base"
        answer.close()
        connection.close()
        until(lambda: service._questions._runs[run_id] == 0, 10)
        answers = service.ask(run_id, Question(["the red dog"], 2, chat=False))
        assert len(answers["trained"]) == 1


def test_a_question_that_waits_too_long_is_refused_with_the_reason(
    busy: tuple[RunService, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning.web import ask

    monkeypatch.setattr(ask, "ASK_SECONDS", 0.1)
    service, _ = busy
    run_id = service.start({})
    until(lambda: service.run(run_id).state == "running")
    answer = client_of(add_ask_routes, service).post(f"/fork/runs/{run_id}/ask", json={"prompts": ["the red dog"]})
    assert answer.status_code == 422 and "is busy, or others asked before" in answer.json()["message"]
    assert service._questions._runs[run_id] == 0


def files_below(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if ".sqlite" not in path.name}


def test_get_makes_and_writes_nothing(
    jobs: MatrixJobs, service: RunService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    run_id = service.start(jobs.settings(max_steps=1, method={"name": "lora", "r": 4}))
    assert service.wait(run_id, 120) == "finished"
    client, before = client_of(add_result_routes, service), files_below(tmp_path)
    address = f"/fork/runs/{run_id}"
    answer = client.get(f"{address}/files.zip?form=merged")
    assert answer.status_code == 422 and "has to be made first" in answer.json()["message"]
    assert client.get(f"{address}/files.zip").status_code == 200
    forms = client.get(f"{address}/results").json()["forms"]
    assert {form: form_state["state"] for form, form_state in forms.items() if form in ("trained", "merged")} == {
        "trained": "ready",
        "merged": "absent",
    }
    assert files_below(tmp_path) == before
    made = client.post(f"{address}/results", json={"form": "merged"})
    assert made.status_code == 202 and made.json()["forms"]["merged"]["state"] in ("making", "ready")
    until(lambda: client.get(f"{address}/results").json()["forms"]["merged"]["state"] == "ready")
    answer = client.get(f"{address}/files.zip?form=merged")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None and {"settings.json", "merged/model.safetensors"} <= set(packed.namelist())
        whole = (service.result(run_id, "merged") / "model.safetensors").read_bytes()
        assert packed.read("merged/model.safetensors") == whole
    assert not list(spare.iterdir()), "no zip is written"
    assert client.post(f"{address}/results", json={"form": "other"}).status_code == 422


def test_a_merged_model_is_offered_only_where_there_can_be_one(jobs: MatrixJobs, service: RunService) -> None:
    for method, state in (("prompt_tuning", "none"), ("full", "none"), ("lora", "absent")):
        run_id = service.start(jobs.settings(max_steps=1, method={"name": method}))
        assert service.wait(run_id, 120) == "finished", service.run(run_id).message
        assert service.result_states(run_id)["forms"]["merged"]["state"] == state, method
    client = client_of(add_result_routes, service)
    run_id = service.start(jobs.settings(method={"name": "prompt_engineering"}))
    assert service.wait(run_id, 120) == "finished"
    assert client.post(f"/fork/runs/{run_id}/results", json={"form": "merged"}).status_code == 422


def test_a_result_of_a_run_that_was_cut_off_is_made_by_a_post_too(jobs: MatrixJobs, service: RunService) -> None:
    run_id = service.start(jobs.settings(max_steps=4, save={"every": 2}))
    assert service.wait(run_id, 120) == "finished"
    import shutil

    shutil.rmtree(service.result(run_id))
    from tuning.runs.events import Event

    cut = {"message": "cut", "step": 4}  # as a server tells it that starts again
    service.store.append(Event(run_id=run_id, attempt=1, seq=10_000, time=time.time(), kind="interrupted", data=cut))
    service.store.flush()
    client = client_of(add_result_routes, service)
    address = f"/fork/runs/{run_id}"
    assert client.get(f"{address}/files.zip").status_code == 422
    assert client.get(f"{address}/results").json()["forms"]["trained"]["state"] == "absent"
    client.post(f"{address}/results", json={"form": "trained"})
    until(lambda: client.get(f"{address}/results").json()["forms"]["trained"]["state"] == "ready")
    assert client.get(f"{address}/files.zip").status_code == 200
