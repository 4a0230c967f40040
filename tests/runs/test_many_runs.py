"""A store of many runs: what a list, an estimate and a start cost, and how a page gets at all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.quick_runs import SMALL, quick_job
from support.routes import client_of_all
from support.stored_runs import add_run
from tuning.bench.stored import fill
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    yield service
    service.close()


def instructions(service: RunService, ask: Callable[[], object]) -> int:
    """Hundreds of instructions that SQLite needs for it: the same each time, whatever else the machine does."""
    count = 0

    def increase() -> int:
        nonlocal count
        count += 1
        return 0

    service.store._reader.set_progress_handler(increase, 100)
    ask()
    service.store._reader.set_progress_handler(None, 0)
    return count


def test_lists_estimates_names_and_times_cost_the_same_with_few_and_with_many_runs(tmp_path: Path) -> None:
    counts: dict[str, list[int]] = {}
    for size in (600, 6_000):
        home = tmp_path / str(size)
        fill(home, size, {"max_steps": 20})
        service = RunService(home)
        try:
            client, last = client_of_all(service), f"r{service.store.last_number() - 1:04d}"
            version = client.get("/fork/live").json()["version"]
            service.note(last, "changed")
            plan = plan_for({"max_steps": 20})
            requests = {
                "start": service.recover,
                "list": partial(client.get, "/fork/live"),
                "change": partial(client.get, f"/fork/live?cur={last}:0&v={version}"),
                "estimate": partial(client.post, "/fork/estimate", json={"max_steps": 20}),
                "seconds": partial(service.expected_seconds, plan),
                "name": partial(service.free_name, "run"),
            }
            for name, ask in requests.items():
                counts.setdefault(name, []).append(instructions(service, ask))
            assert service.expected_seconds(plan) == pytest.approx(plan.value("total_tokens") / 81)
        finally:
            service.close()
    assert all(many <= 1.5 * few + 5 for few, many in counts.values()), counts


def test_a_page_that_knows_a_version_gets_what_changed_and_what_is_gone(service: RunService) -> None:
    client = client_of_all(service)
    for i in (1, 2, 3):
        add_run(service, i)
    first = client.get("/fork/live").json()
    assert [run["run_id"] for run in first["runs"]] == ["r0003", "r0002", "r0001"] and first["older"] is None
    service.rename("r0001", "other")
    service.store.delete("r0002")
    then = client.get(f"/fork/live?v={first['version']}").json()
    assert [run["name"] for run in then["runs"]] == ["other"] and then["removed"] == ["r0002"]
    last = client.get(f"/fork/live?v={then['version']}").json()
    assert "runs" not in last and "removed" not in last
    service.store.undelete("r0002")
    again = client.get(f"/fork/live?v={then['version']}").json()
    assert [run["run_id"] for run in again["runs"]] == ["r0002"] and again["removed"] == []


@pytest.mark.parametrize("version", ["", "x", "-1", "99999", "9" * 400, "1.5", "²"])
def test_a_version_that_is_none_of_this_store_gets_the_whole_list(service: RunService, version: str) -> None:
    add_run(service, 1)
    answer = client_of_all(service).get("/fork/live", params={"v": version}).json()
    assert [run["run_id"] for run in answer["runs"]] == ["r0001"] and "removed" not in answer


def test_progress_of_a_phase_is_sent_without_the_list(service: RunService) -> None:
    client, emit = client_of_all(service), Emitter(add_run(service, 1), 1, service.store.append)
    emit("phase", name="loading")
    service.store.flush()
    list_before = client.get("/fork/live").json()
    for done in (1_000, 2_000):
        emit("phase", name="tokenizing", done=done, total=5_000)
    emit("checkpoint", step=1, path="x")
    emit("warning", step=1, message="x")
    service.store.flush()
    then = client.get(f"/fork/live?v={list_before['version']}").json()
    assert then["version"] == list_before["version"] and "runs" not in then
    assert then["progress"]["r0001"]["phase"] == "tokenizing 2,000 of 5,000"
    emit("finished", step=1)
    service.store.flush()
    assert client.get(f"/fork/live?v={list_before['version']}").json()["runs"][0]["state"] == "finished"


def test_the_position_in_the_queue_is_shown_while_a_run_waits(service: RunService) -> None:
    client = client_of_all(service)
    first, second = (service.start(SMALL | {"max_steps": 100_000}) for _ in range(2))
    version = client.get("/fork/live").json()["version"]
    assert client.get(f"/fork/live?v={version}").json()["progress"][second]["place"] == 1
    service.stop(first)
    service.wait(first, 20)
    service.stop(second)


def test_the_list_goes_on_page_by_page_and_a_run_is_found_wherever_it_is(tmp_path: Path) -> None:
    fill(tmp_path, 1_000, {"max_steps": 20})
    service = RunService(tmp_path)
    try:
        client = client_of_all(service)
        answer = client.get("/fork/live?cur=r0007:0,r0999:0").json()
        newest = [run["run_id"] for run in answer["runs"]]
        assert newest[:2] == ["r0999", "r0997"] and len(newest) == 201 and newest[-1] == "r0007", "a shown old run"
        assert len(answer["points"]["r0007"]["step"]) == 20
        seen, older = newest[:200], answer["older"]
        while older is not None:
            page = client.get(f"/fork/runs?before={older}").json()
            seen, older = seen + [run["run_id"] for run in page["runs"]], page["older"]
        assert seen == [f"r{i:04d}" for i in range(999, 0, -2)]
        for text, run_ids in (("r0003", ["r0003"]), ("RUN (5)", ["r0005"]), ("nothing", []), ("r0002", [])):
            assert [run["run_id"] for run in client.get("/fork/runs", params={"find": text}).json()["runs"]] == run_ids
        gone = client.get("/fork/runs?deleted=true").json()
        assert len(gone["runs"]) == 200 and gone["runs"][0]["run_id"] == "r1000"
        assert client.get("/fork/runs?before=x").status_code == 422
    finally:
        service.close()


def test_more_changes_than_a_list_holds_are_the_list_itself(tmp_path: Path) -> None:
    fill(tmp_path, 600, {"max_steps": 20})
    service = RunService(tmp_path)
    try:
        answer = client_of_all(service).get("/fork/live?v=1").json()
        assert len(answer["runs"]) == 200 and "removed" not in answer and answer["older"] == 201
    finally:
        service.close()


def test_a_name_is_free_where_thousands_have_it(service: RunService) -> None:
    assert service.free_name("run") == "run"
    for i in range(1, 8):
        add_run(service, i, name="run" if i == 1 else f"run ({i})")
        assert service.free_name("run") == f"run ({i + 1})"
    service.store.delete("r0007")
    assert service.free_name("run") == "run (8)", "a deleted run may come back"


def test_points_come_over_the_wire_as_they_are_stored_and_packed(service: RunService) -> None:
    client, run_id = client_of_all(service), add_run(service, 1)
    emit = Emitter(run_id, 1, service.store.append)
    points = [{"step": 1, "loss": 1e-320, "name": 'é"\\\ud800'}, {"step": 2, "loss": None, "metrics": {"a": [1, 2.5]}}]
    for point in points:
        emit("step", **point)
    emit("eval", **points[1])
    service.store.flush()
    answer = client.get(f"/fork/live?cur={run_id}:0")
    assert answer.headers["content-encoding"] == "gzip"
    series = answer.json()["points"][run_id]
    assert series["step"] == points and series["eval"] == points[1:]
    assert {run_id: series} == service.store.series_after({run_id: 0})
