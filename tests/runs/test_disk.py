"""What a home takes on the disk: deleted for good, cleared at a start, full, damaged, or only to be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.quick_runs import SMALL, quick_job
from support.routes import client_of_all
from support.stored_runs import add_run
from tuning import cli
from tuning.bench.stored import fill
from tuning.core.errors import RunError
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter, Event
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.runs.store import STORE, RunStore
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

ROWS = "".join(json.dumps({"prompt": f"Question {i}:", "completion": f" answer {i}"}) + "\n" for i in range(40))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    yield service
    service.close()


def finished(service: RunService, **settings: Any) -> str:
    run_id = service.start(SMALL | settings)
    assert service.wait(run_id, 30) == "finished"
    return run_id


def uploaded(client: TestClient, name: str = "rows.jsonl", rows: str = ROWS, days: float = 2) -> Path:
    path = Path(client.post(f"/fork/data/upload?name={name}", content=rows.encode()).json()["path"])
    for entry in (path, path.parent):
        os.utime(entry, (entry.stat().st_mtime - days * 86_400,) * 2)
    return path


# -- deleted for good ------------------------------------------------------------------------------------------------
def test_a_run_deleted_for_good_leaves_nothing_and_the_others_as_they_were(service: RunService) -> None:
    client = client_of_all(service)
    gone, other = finished(service), finished(service)
    version = client.get("/fork/live").json()["version"]
    assert "not deleted" in client.post(f"/fork/runs/{gone}/purge").json()["message"]
    client.post(f"/fork/runs/{gone}/delete")
    used = client.get("/fork/disk").json()
    assert (used["runs"]["count"], used["deleted"]["count"]) == (1, 1) and used["deleted"]["bytes"] > 0
    answer = client.post(f"/fork/runs/{gone}/purge")
    assert answer.status_code == 200 and answer.json()["bytes"] == used["deleted"]["bytes"]
    assert client.get(f"/fork/live?v={version}").json()["removed"] == [gone]
    assert not service.run_folder(gone).exists() and service.store.events(gone) == []
    assert [file.name for file in service.home.rglob(f"*{gone}*")] == []
    assert len(service.store.events(other, "step")) == 3 and service.run_folder(other).is_dir()
    assert client.post(f"/fork/runs/{gone}/undelete").status_code == 404
    assert finished(service) == "r0003", "an id never comes again"


def test_the_newest_run_deleted_for_good_does_not_give_its_id_to_the_next(service: RunService) -> None:
    gone = finished(service)
    service.delete(gone)
    service.purge(gone)
    assert finished(service) == "r0002"


@pytest.mark.slow
def test_the_room_of_a_hundred_thousand_points_is_given_back(service: RunService) -> None:
    run_id = finished(service)
    emit = Emitter(run_id, 2, service.store.append)
    for step in range(100_000):
        emit("step", step=step, loss=1.0, seconds=1.0, input_tokens=1)
    service.store.flush()
    file = service.home / STORE
    before = file.stat().st_size
    service.delete(run_id)
    service.purge(run_id)
    service.close()
    assert before > 8_000_000 and file.stat().st_size < 500_000


@pytest.mark.parametrize("base", ["run:r0001", "run:r0001/best", "path:{folder}/model"])
def test_what_another_run_began_with_is_not_deleted_for_good(service: RunService, base: str) -> None:
    parent = finished(service)
    settings = plan_for(SMALL).settings.to_dict() | {"model": base.format(folder=service.run_folder(parent))}
    child = add_run(service, 2, settings=settings, name="the child")
    Emitter(child, 1, service.store.append)("finished", step=1)
    for run_id in (parent, child):
        service.store.delete(run_id)  # a deleted child may come back
    answer = client_of_all(service).post(f"/fork/runs/{parent}/purge")
    assert answer.status_code == 422 and "the child" in answer.json()["message"]
    assert service.run_folder(parent).is_dir() and len(service.store.events(parent, "step")) == 3
    service.purge(child)
    service.purge(parent)
    assert service.store.lines(deleted=True) == []


def test_a_fork_of_it_stays_and_has_no_parent_any_more(service: RunService) -> None:
    parent = finished(service)
    child = service.start(SMALL, parent=parent, from_step=2)
    service.wait(child, 30)
    service.delete(parent)
    service.purge(parent)
    row = service.run(child)
    assert (row.parent, row.from_step, row.state) == (None, None, "finished")


@pytest.mark.slow
def test_an_upload_goes_with_the_last_run_that_names_it(service: RunService) -> None:
    client = client_of_all(service)
    mine, ours = uploaded(client), uploaded(client, rows=ROWS + ROWS)
    today = uploaded(client, rows=ROWS * 3, days=0.5)
    runs = [finished(service, data={"source": str(path)}) for path in (mine, ours, ours, today)]
    for run_id in (runs[0], runs[1], runs[3]):
        service.delete(run_id)
        service.purge(run_id)
    assert not mine.exists() and not mine.parent.exists()
    assert ours.is_file(), "another run needs it"
    assert today.is_file(), "somebody may be about to start with it"
    service.delete(runs[2])
    service.purge(runs[2])
    assert not ours.exists()


def test_a_deletion_for_good_that_was_cut_off_is_finished_at_the_next_start(tmp_path: Path) -> None:
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    run_id = finished(service)
    service.delete(run_id)
    (tmp_path / "purged").mkdir()
    service.run_folder(run_id).rename(tmp_path / "purged" / run_id)  # killed here
    service.close()
    again = RunService(tmp_path)
    try:
        again.recover()
        assert again.store.lines(deleted=True) == [] and list((tmp_path / "purged").iterdir()) == []
    finally:
        again.close()


def test_a_run_of_another_living_process_is_not_deleted_for_good(service: RunService) -> None:
    run_id = add_run(service, 1)
    other = RunService(service.home)
    try:
        Emitter(run_id, 1, other.store.append)("finished", step=1)  # its end is told, its owner has not let go yet
        other.store.flush()
        other.store.delete(run_id)
        with pytest.raises(RunError, match="another Tuning Fork process"):
            other.purge(run_id)
    finally:
        other.close()


# -- a start after a kill --------------------------------------------------------------------------------------------
KILLED = """
import sys, os, time
from pathlib import Path
from tuning.runs.events import Emitter
from filelock import lock_descriptor
from tuning.runs.store import RunStore
home = Path(sys.argv[1])
store = RunStore(home)
store.create_run("r0001", "one", {}, {})
Emitter("r0001", 1, store.append)("started", total_steps=9)
store.flush()
(home / "uploads").mkdir(exist_ok=True)
upload = os.open(home / "uploads" / ".upload-mine", os.O_RDWR | os.O_CREAT)
assert lock_descriptor(upload, blocking=False)
os.write(upload, b"x" * 1000)
print("ready", flush=True)
time.sleep(600)
"""


def leave_parts(folder: Path) -> None:
    """What a kill within a checkpoint, the best weights, a prediction and the result leaves."""
    (folder / "checkpoints" / "step-00000004.part").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000004.part" / ".tmpAbCd12").write_bytes(b"x")
    (folder / "checkpoints" / "step-00000002").mkdir()
    (folder / "checkpoints" / "step-00000002" / "state.json").write_text("{}")
    (folder / "predictions").mkdir()
    for name in ("best.part", ".tmpXyZ987", "predictions/step-00000004.part", "settings.json"):
        (folder / name).write_bytes(b"x")
    (folder / "adapter.part").mkdir()


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_start_clears_what_a_killed_server_was_writing_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    folder = tmp_path / "runs" / "r0001"
    leave_parts(folder)
    whole = files_of(folder)
    lock, upload = tmp_path / "locks" / "r0001.lock", tmp_path / "uploads" / ".upload-mine"
    service = RunService(tmp_path)
    try:
        service.recover()
        assert files_of(folder) == whole and lock.is_file() and upload.is_file(), "its process lives"
        child.send_signal(signal.SIGKILL)
        child.wait()
        service.recover()
        assert files_of(folder) == [
            "checkpoints",
            "checkpoints/step-00000002",
            "checkpoints/step-00000002/state.json",
            "predictions",
            "settings.json",
        ]
        assert service.run("r0001").state == "interrupted"
        assert not lock.exists() and not upload.exists()
    finally:
        service.close()


def test_locks_are_there_as_long_as_runs_and_hold_off_others(tmp_path: Path) -> None:
    mine, theirs = RunStore(tmp_path), RunStore(tmp_path)
    try:
        for _ in range(50):  # given back and taken by turns: never both have it
            assert mine.claim("r1") and not theirs.claim("r1")
            mine.release("r1")
            assert theirs.claim("r1") and not mine.claim("r1")
            theirs.release("r1")
        assert list((tmp_path / "locks").iterdir()) == []
    finally:
        mine.close()
        theirs.close()


def test_an_upload_that_no_run_names_goes_after_a_month(tmp_path: Path) -> None:
    service = RunService(tmp_path, ThreadExecutor(quick_job))
    client = client_of_all(service)
    used, new = uploaded(client, days=40), uploaded(client, rows=ROWS * 2, days=20)
    old = uploaded(client, rows=ROWS * 3, days=40)
    finished(service, data={"source": str(used)})
    service.close()
    again = RunService(tmp_path)
    again.recover()
    again.close()
    assert used.is_file() and new.is_file() and not old.parent.exists()


# -- a full disk -----------------------------------------------------------------------------------------------------
@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own; the test is left out where none can be mounted."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "size=2m") as folder:
        yield folder


def fill_up(folder: Path, leave: int = 0) -> Path:
    """Write a file until nothing fits any more, then leave so many bytes."""
    ballast = folder / "ballast"
    with open(ballast, "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


def test_start_and_upload_on_a_full_disk_are_refused_in_words_and_leave_nothing(small_disk: Path) -> None:
    service = RunService(small_disk, ThreadExecutor(quick_job))
    try:
        client, before = client_of_all(service), finished(service)
        for leave in (0, 4096, 8192, 16384, 32768):
            ballast = fill_up(small_disk, leave)
            answer = client.post("/fork/runs", json={"settings": SMALL})
            if answer.status_code == 201:  # it had room for that
                run_id = answer.json()["run_id"]
                ballast.unlink()
                service.wait(run_id, 30)
                continue
            assert answer.status_code == 422 and answer.json()["message"], answer.text
            listed = {run["run_id"] for run in client.get("/fork/live").json()["runs"]}
            assert {folder.name for folder in (small_disk / "runs").iterdir()} <= listed, "an orphan folder"
            sent = client.post("/fork/data/upload?name=rows.jsonl", content=ROWS.encode() * 40)
            assert sent.status_code == 422 and sent.json()["problems"][0]["field"] == "data.source"
            assert list((small_disk / "uploads").glob("*")) == [] if (small_disk / "uploads").exists() else True
            ballast.unlink()
        assert finished(service) > before
        assert service.store.trouble is None
    finally:
        service.close()


def test_events_wait_for_room_and_none_is_lost(small_disk: Path) -> None:
    service = RunService(small_disk, ThreadExecutor(quick_job))
    try:
        client, run_id = client_of_all(service), add_run(service, 1)
        emit, ballast = Emitter(run_id, 1, service.store.append), fill_up(small_disk)
        emit("started", total_steps=9_000)
        for step in range(1, 3_001):
            emit("step", step=step, loss=1.0, seconds=1.0, input_tokens=1)
        end = time.monotonic() + 20
        while "trouble" not in client.get("/fork/live").json():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "Disk full?" in client.get("/fork/live").json()["trouble"]
        assert client.post(f"/fork/runs/{run_id}/rename", json={"name": "x"}).status_code == 422
        ballast.unlink()
        while "trouble" in client.get("/fork/live").json():
            assert time.monotonic() < end
            time.sleep(0.05)
        service.store.flush()
        assert [event.data["step"] for event in service.store.events(run_id, "step")] == list(range(1, 3_001))
    finally:
        service.close()


def train(folder: Path, settings: dict[str, Any], heard: Callable[[Event], None]) -> list[Event]:
    events: list[Event] = []

    def append(event: Event) -> None:
        events.append(event)
        heard(event)

    job = Job(run_id="r1", attempt=1, plan=plan_for(settings), folder=str(folder))
    run_job(job, Emitter("r1", 1, append), Commands())
    return events


TRAINED = {"max_steps": 12, "save": {"every": 2}, "eval": {"every": 2}, "data": {"train_rows": 16, "eval_rows": 4}}


@pytest.mark.slow
def test_a_run_goes_on_where_a_checkpoint_finds_no_room_and_keeps_the_one_before(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=24m") as disk:
        ballast: list[Path] = []

        def heard(event: Event) -> None:
            if event.kind == "step" and event.data["step"] == 5:
                ballast.append(fill_up(disk))
            if event.kind == "step" and event.data["step"] == 10:
                ballast[0].unlink()

        events = train(disk / "run", TRAINED, heard)
        kinds = [event.kind for event in events]
        assert kinds[-1] == "finished" and kinds.count("step") == 12
        warnings = [event.data["message"] for event in events if event.kind == "warning"]
        for what in ("The checkpoint of step 6", "The predictions of step 8", "The best weights of step"):
            assert any(message.startswith(what) and "No space left" in message for message in warnings), warnings
        saved = [event.data["step"] for event in events if event.kind == "checkpoint"]
        assert saved == [2, 4, 10, 12]
        assert sorted(path.name for path in (disk / "run" / "checkpoints").iterdir()) == [
            "step-00000010",
            "step-00000012",
        ]
        assert not list((disk / "run").rglob("*.part")) and (disk / "run" / "adapter").is_dir()


def test_a_run_whose_result_finds_no_room_ends_in_words_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=24m") as disk:

        def heard(event: Event) -> None:
            if event.kind == "step" and event.data["step"] == 5:
                fill_up(disk)

        events = train(disk / "run", TRAINED, heard)
        assert events[-1].kind == "failed" and "no room left on the disk" in events[-1].data["message"]
        assert [path.name for path in (disk / "run" / "checkpoints").iterdir()][-1:]
        assert not list((disk / "run").rglob("*.part"))


def test_the_command_line_ends_without_a_traceback_where_the_disk_of_out_is_full(small_disk: Path) -> None:
    settings = small_disk.parent / "settings.json"
    settings.write_text(json.dumps(TRAINED))
    out = small_disk / "out"
    out.mkdir()
    fill_up(small_disk)
    done = subprocess.run(
        [sys.executable, "-m", "tuning", "run", str(settings), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert "No space left" in done.stderr or "no room" in done.stdout


# -- a store that cannot be used -------------------------------------------------------------------------------------
def refused(home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `serve` says of a home, with exit code 2 and the same for programs."""
    assert cli.main(["serve", "--home", str(home), "--port", "0"]) == 2
    printed = capsys.readouterr()
    (problem,) = json.loads(printed.out.splitlines()[-1])["problems"]
    assert problem["field"] == "home" and problem["message"] in printed.err
    return str(problem["message"])


def test_a_home_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").write_text("x")
    assert "--home" in refused(tmp_path / "home", capsys)


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_store_that_is_none_is_refused_in_a_sentence_and_left_as_it_is(
    tmp_path: Path, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / STORE).write_bytes(garbage)
    message = refused(tmp_path, capsys)
    assert STORE in message and "Move it" in message
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(SMALL))
    assert cli.main(["run", str(settings), "--home", str(tmp_path)]) == 2
    assert "Move it" in capsys.readouterr().err
    assert (tmp_path / STORE).read_bytes() == garbage


@pytest.mark.slow
def test_app_py_refuses_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "app.py", "--port", "0", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 2 and "cannot hold runs" in done.stderr and "Traceback" not in done.stderr


def test_a_home_that_may_only_be_read_opens_for_reading(tmp_path: Path) -> None:
    with mounted(tmp_path / "home", "size=16m") as home:
        before = RunService(home, ThreadExecutor(quick_job))
        run_id = finished(before)
        before.close()
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        service = RunService(home, ThreadExecutor(quick_job))
        try:
            service.recover()
            client = client_of_all(service)
            answer = client.get(f"/fork/live?cur={run_id}:0").json()
            assert [run["run_id"] for run in answer["runs"]] == [run_id]
            assert len(answer["points"][run_id]["step"]) == 3 and "can only be read" in answer["trouble"]
            for action, body in (("rename", {"name": "x"}), ("delete", {}), ("undelete", {}), ("purge", {})):
                assert client.post(f"/fork/runs/{run_id}/{action}", json=body).status_code == 422
            for answer in (
                client.post("/fork/runs", json={"settings": SMALL}),
                client.post("/fork/data/upload?name=x.jsonl", content=ROWS.encode()),
            ):
                assert answer.status_code == 422 and "read" in answer.json()["message"].lower()
        finally:
            service.close()


def test_a_folder_without_a_store_that_may_only_be_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "home", "size=1m,ro") as home:
        assert "--home" in refused(home, capsys)


def test_of_a_damaged_store_the_readable_runs_are_shown_and_the_damage_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, 200, {"max_steps": 20})
    file = tmp_path / STORE
    size = file.stat().st_size
    shown: list[int] = []
    for part in range(1, 20, 3):  # a stretch of the file is written over, elsewhere each time
        home = tmp_path / str(part)
        home.mkdir()
        whole = bytearray(file.read_bytes())
        start = size * part // 20 // 4096 * 4096
        whole[start : start + 16 * 4096] = b"\xa5" * (16 * 4096)
        (home / STORE).write_bytes(whole)
        try:
            service = RunService(home, ThreadExecutor(quick_job))
        except RunError as error:
            assert "Move it" in str(error)
            continue
        try:
            service.recover()
            client = client_of_all(service)
            answer = client.get("/fork/live?cur=r0001:0,r0199:0,r0101:0")
            assert answer.status_code == 200, answer.text
            shown.append(len(answer.json()["runs"]))
            started = client.post("/fork/runs", json={"settings": SMALL})
            assert started.status_code in (201, 422), started.text
            if started.status_code == 422:
                assert "damaged" in started.json()["message"]
                assert "damaged" in client.get("/fork/live").json()["trouble"]
                assert not list((home / "runs").glob("*")) if (home / "runs").exists() else True
            for path in ("/fork/runs?deleted=true", "/fork/disk", "/fork/runs/r0101/settings"):
                assert client.get(path).status_code < 500
        finally:
            service.close()
    assert len(shown) >= 5 and max(shown) == 100 and min(shown) > 50
