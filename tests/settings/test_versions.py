"""What an earlier version has written is read with the meaning it had, and that is told: settings, stores, stored runs.

The files under tests/stored/version_N were written by that version: a finished run, and one that was killed behind its
checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.stored_runs import STORED, as_it_was
from tuning.core.errors import RunError, SettingsError
from tuning.runs.events import Emitter, Event
from tuning.runs.run_row import timing_key
from tuning.runs.store import MIGRATIONS, RunStore
from tuning.settings.schema import Settings
from tuning.settings.versions import VERSION, upgrade
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

ROOT = Path(__file__).resolve().parents[2]
OLD_MEANING = {
    "packing": False,
    "long_text": "cut",
    "row_choice": "first",
    "separator": " ",
    "chat_template": "off",
    "special_tokens": "config",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder as version 1 left it."""
    shutil.copytree(STORED / "version_1", tmp_path, dirs_exist_ok=True)
    for file in tmp_path.rglob("*.json"):
        file.write_text(as_it_was(file.read_text("utf-8"), tmp_path), "utf-8")
    with sqlite3.connect(tmp_path / "runs.sqlite") as db:
        db.executescript(as_it_was((tmp_path / "runs.sql").read_text("utf-8"), tmp_path))
    db.close()
    return tmp_path


def old(**changes: Any) -> dict[str, Any]:
    return json.loads((STORED / "version_1" / "runs" / "r0001" / "settings.json").read_text("utf-8")) | changes


def test_settings_of_version_1_keep_their_meaning_and_say_so() -> None:
    given = old()
    upgraded, notices = upgrade(given)
    assert given["version"] == 1, "what was given stays as it is"
    settings = Settings.from_dict(given)
    assert settings.version == VERSION == 2
    assert settings.precision == "autocast_bf16"
    assert {name: getattr(settings.data, name) for name in OLD_MEANING} == OLD_MEANING
    assert Settings.from_dict(upgraded) == settings
    (notice,) = notices
    assert notice.field == "version" and notice.count == 6
    for word in ("precision autocast_bf16", "data.long_text 'cut'", "data.row_choice 'first'"):
        assert word in notice.message


def test_an_evaluation_that_was_left_out_in_version_1_stays_out() -> None:
    settings = Settings.from_dict(old(eval={"every": None}))
    assert settings.eval.every == 100_000
    assert Settings.from_dict({"eval": {"every": None}}).eval.every is None


def test_what_version_1_wrote_outright_is_not_overwritten() -> None:
    given = old()
    given["data"]["packing"] = True
    assert Settings.from_dict(given).data.packing is True


def test_settings_of_today_and_those_that_name_no_version_give_no_notice() -> None:
    for given in ({}, {"version": 2}, Settings().to_dict()):
        assert upgrade(given) == (given, ())
        assert Settings.from_dict(given) == Settings()


@pytest.mark.parametrize("version", [0, 3, 1.5, "1", None, True])
def test_a_version_that_is_not_known_is_refused_by_name(version: object) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_dict({"version": version})
    assert error.value.problems[0].field == "version"


@pytest.mark.parametrize("version", [1, 2])
def test_a_value_that_only_one_version_knows_is_refused_in_the_other(version: int) -> None:
    assert Settings.from_dict({"version": 1, "precision": "bf16"}).precision == "autocast_bf16"
    with pytest.raises(SettingsError, match="autocast_bf16"):
        Settings.from_dict({"version": 2, "precision": "bf16"})
    with pytest.raises(SettingsError, match=r"data\.rows_choice"):
        Settings.from_dict({"version": version, "data": {"rows_choice": "first"}})


def test_a_store_of_version_1_opens_with_every_run_and_point(home: Path) -> None:
    store = RunStore(home)
    try:
        finished, killed = store.run("r0001"), store.run("r0002")
        assert (finished.state, finished.step, killed.state, killed.step) == ("finished", 6, "running", 6)
        assert finished.settings["precision"] == "autocast_bf16" and killed.settings["precision"] == "fp32"
        for row in (finished, killed):
            assert row.settings["version"] == 2
            assert {name: row.settings["data"][name] for name in OLD_MEANING} == OLD_MEANING
            assert [notice["field"] for notice in row.plan["notices"]] == ["version"]
            assert row.plan["settings"] == row.settings
        assert len(store.events("r0001", "step")) == 6
        (rate,) = store.rates(
            timing_key(finished.settings, "cpu") or "", 5
        )  # what has ended tells how long others take
        assert rate == pytest.approx((finished.seconds or 0) / (finished.input_tokens or 1))
        assert [line["run_id"] for line in store.lines()] == ["r0002", "r0001"]
        assert store.mark_interrupted() == ["r0002"]
    finally:
        store.close()
    again = RunStore(home)  # the migrations are made once
    try:
        assert [len(row.plan["notices"]) for row in again.runs()] == [1, 1]
        assert again.run("r0002").state == "interrupted"
    finally:
        again.close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "runs.sqlite") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(RunError, match="newer Tuning Fork"):
        RunStore(tmp_path)
    assert sqlite3.connect(tmp_path / "runs.sqlite").execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1


def test_a_migration_that_fails_leaves_the_store_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(db: sqlite3.Connection) -> None:
        db.execute("UPDATE runs SET name = 'lost'")
        raise RuntimeError("no")

    monkeypatch.setattr("tuning.runs.store.MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(RuntimeError):
        RunStore(home)
    with sqlite3.connect(home / "runs.sqlite") as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 0
        assert "lost" not in [name for (name,) in db.execute("SELECT name FROM runs")]


def test_a_run_of_version_1_goes_on_from_its_checkpoint(home: Path) -> None:
    plain = json.loads((home / "runs" / "r0002" / "job.json").read_text("utf-8"))
    job = Job.from_dict(plain | {"attempt": 2, "folder": str(home / "runs" / "r0002")})
    assert job.plan.fingerprint == "624b43e3dc6140a1", "the checkpoint's own"
    assert job.plan.settings.data.long_text == "cut"
    assert [notice.field for notice in job.plan.notices] == ["version"]
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    events, commands = list[Event](), Commands()

    def sink(event: Event) -> None:
        events.append(event)
        if event.kind == "step":
            commands.stop()

    assert run_job(job, Emitter("r0002", 2, sink), commands) == "cancelled"
    started = next(event for event in events if event.kind == "started")
    assert started.data["step"] == 6
    assert [event.data["step"] for event in events if event.kind == "step"] == [7]


def test_the_interval_of_evaluations_is_the_smallest_that_reads_a_tenth() -> None:
    from tuning.plan.plan import plan_for

    plan = plan_for({"eval": {"every": None}, "data": {"source": "pirate"}})
    tokens, rows = plan.value("tokens_per_update"), plan.data.eval_lengths
    every = plan.value("eval_every")
    assert sum(rows) <= 0.1 * every * tokens
    assert sum(rows) > 0.1 * (every - 1) * tokens
    assert plan_for({"eval": {"every": 7}}).value("eval_every") == 7
