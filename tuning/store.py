"""The store: every run and every event of it, kept in one SQLite file; the only room with SQL.

In: events from an executor (`append`, from any thread, never waits for the disk) and small changes a person makes
(name, note, delete). Out: run rows, and the points of their curves after a cursor. The cursor is the store's own
increasing row number, so a second attempt or an event delivered twice cannot confuse it.

One writer thread commits in batches. Readers see only what is committed, so whatever has been announced to a
browser survives a kill -9 of the process. A run that is queued or running belongs to one process, which holds a
lock on a small file as long as it lives; a run that says "running" and whose lock is free was interrupted.
"""

import json
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tuning.errors import RunError, whole_characters
from tuning.events import END_KINDS, Event
from tuning.locks import OwnerLocks
from tuning.rows import ACTIVE_STATES, COLUMNS, RunRow, row_changes
from tuning.settings_versions import today

log = logging.getLogger(__name__)

STORE = "runs.sqlite"
"""The file in a home folder."""
BATCH_SECONDS = 0.05
FAULTS_OF_AN_ITEM = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite raises for a value; all else that it raises is about the disk or the file."""
FIRST_LOAD_LIMIT = 2_000
COLOR_SLOTS = 8
"""As many as the page has colours."""
POINT_KINDS = ("step", "eval")

TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'queued', created REAL NOT NULL, started REAL, ended REAL,
    settings TEXT NOT NULL, plan TEXT NOT NULL, estimate TEXT, parent TEXT REFERENCES runs(run_id), from_step INTEGER,
    attempt INTEGER NOT NULL DEFAULT 1, step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER, loss REAL, eval_loss REAL,
    best_eval REAL, message TEXT, phase TEXT, seconds REAL, input_tokens INTEGER, peak_bytes INTEGER,
    slot INTEGER NOT NULL, deleted REAL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL REFERENCES runs(run_id), attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, step INTEGER, value REAL, data TEXT NOT NULL,
    UNIQUE (run_id, attempt, seq));
CREATE INDEX IF NOT EXISTS points ON events (run_id, kind, id, step, value);
"""
"""The tables of the first version. A later version changes them by a migration, never here."""


def _first_tables(db: sqlite3.Connection) -> None:
    for statement in TABLES.split(";\n"):
        db.execute(statement)


def _settings_of_today(db: sqlite3.Connection) -> None:
    """Settings of version 1 get their old meaning written out; the run's notices say so. Its settings.json stays."""
    for run_id, settings, plan in db.execute("SELECT run_id, settings, plan FROM runs").fetchall():
        found, told = today(json.loads(settings))
        changed = json.loads(plan)
        if not told:
            continue
        if isinstance(changed.get("settings"), dict):
            changed["settings"] = found
        changed["notices"] = [*changed.get("notices", ()), *(one.to_dict() for one in told)]
        values = (json.dumps(found), json.dumps(changed), run_id)
        db.execute("UPDATE runs SET settings = ?, plan = ? WHERE run_id = ?", values)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first_tables, _settings_of_today)
"""Each takes a store from the version before to its own; the version (SQLite's user_version) counts those made. The
first finds its tables there in stores from before versions were kept."""


def _migrate(db: sqlite3.Connection, home: Path) -> None:
    """Bring the store to this program's version, whole or not at all. Raises RunError on a newer store."""
    db.execute("BEGIN IMMEDIATE")  # another process may be at the same
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise RunError(
                f"The runs in {home} were stored by a newer Tuning Fork (version {version} of the store, this one knows"
                f" {len(MIGRATIONS)}). Install that one, or name another folder with --home."
            )
        for migrate in MIGRATIONS[version:]:
            migrate(db)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


class RunStore:
    """All runs under one home folder."""

    def __init__(self, home: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.home = Path(home).expanduser()
        self.clock = clock
        self.trouble: str | None = None  # why nothing can be written just now, in words for the page
        self._locks = OwnerLocks(self.home / "locks")
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._read_lock = threading.Lock()
        self._closed = False
        self.home.mkdir(parents=True, exist_ok=True)
        setup = self._connect()
        _migrate(setup, self.home)
        setup.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('version', '1')", (uuid.uuid4().hex[:12],))
        self.epoch: str = setup.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
        setup.close()
        self._reader = self._connect()
        self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._writer.start()

    # -- reading ---------------------------------------------------------------------------------------------------
    def version(self) -> int:
        """Increases whenever the run list changes; new points alone do not change it."""
        return int(self._rows("SELECT value FROM meta WHERE key = 'version'")[0][0])

    def runs(self, include_deleted: bool = False) -> list[RunRow]:
        """Newest first."""
        where = "" if include_deleted else "WHERE deleted IS NULL"
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs {where} ORDER BY number DESC")
        return [RunRow.from_values(row) for row in rows]

    def active_runs(self) -> list[RunRow]:
        """Queued, running and paused runs, in the order they were asked for."""
        marks = ", ".join("?" * len(ACTIVE_STATES))
        sql = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE state IN ({marks}) AND deleted IS NULL ORDER BY number"
        return [RunRow.from_values(row) for row in self._rows(sql, ACTIVE_STATES)]

    def run(self, run_id: str) -> RunRow:
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE run_id = ?", (run_id,))
        if not rows:
            raise RunError(f"There is no run {run_id!r} here. It may have been started from another home folder.")
        return RunRow.from_values(rows[0])

    def last_number(self) -> int:
        """How many runs there have ever been."""
        return int(self._rows("SELECT coalesce(max(number), 0) FROM runs")[0][0])

    def events(self, run_id: str, kind: str | None = None) -> list[Event]:
        """Every event of a run, or those of one kind, in the order they were stored."""
        only, values = ("", (run_id,)) if kind is None else (" AND kind = ?", (run_id, kind))
        sql = f"SELECT attempt, seq, time, kind, data FROM events WHERE run_id = ?{only} ORDER BY id"
        return [
            Event(run_id=run_id, attempt=attempt, seq=seq, time=when, kind=kind, data=json.loads(data))
            for attempt, seq, when, kind, data in self._rows(sql, values)
        ]

    def series_after(self, cursors: dict[str, int], limit: int = FIRST_LOAD_LIMIT) -> dict[str, dict[str, Any]]:
        """New points of each run after its row number: {run: {"id": the next cursor, "step": [...], "eval": [...]}}.

        More than `limit` new points of a kind are thinned to the lowest and highest of each stretch, and the last.
        """
        answer: dict[str, dict[str, Any]] = {}
        for run_id, after in cursors.items():
            # a kind at a time, which the index answers by one look at its end
            sql = "SELECT max(id) FROM events WHERE run_id = ? AND kind = ?"
            newest = max(self._rows(sql, (run_id, kind))[0][0] or 0 for kind in POINT_KINDS)
            if not newest:
                continue
            points = {kind: self._points(run_id, kind, after, newest, limit) for kind in POINT_KINDS}
            answer[run_id] = {"id": newest, **points}
        return answer

    def _points(self, run_id: str, kind: str, after: int, newest: int, limit: int) -> list[dict[str, Any]]:
        span = (run_id, kind, after, newest)
        where = "run_id = ? AND kind = ? AND id > ? AND id <= ?"
        count, first, last = self._rows(f"SELECT count(*), min(step), max(step) FROM events WHERE {where}", span)[0]
        if not count:
            return []
        if count <= limit:
            rows = self._rows(f"SELECT data FROM events WHERE {where} ORDER BY id", span)
            return [json.loads(data) for (data,) in rows]
        buckets = max(1, (limit - 2) // 2)
        width = ((last or 0) - (first or 0)) // buckets + 1
        keep: set[int] = set()
        for extreme in ("min", "max"):
            # SQLite gives the other columns of the row that holds the min or max: the id of that point
            sql = f"SELECT id, {extreme}(value) FROM events WHERE {where} GROUP BY (step - ?) / ?"
            keep.update(row[0] for row in self._rows(sql, (*span, first or 0, width)))
        ends = self._rows(f"SELECT min(id), max(id) FROM events WHERE {where}", span)[0]
        keep.update(ends)
        # through a temporary JSON list, because the number of ? in one statement is limited
        sql = "SELECT data FROM events WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        return [json.loads(data) for (data,) in self._rows(sql, (json.dumps(sorted(keep)),))]

    def _rows(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._read_lock:
            if self._closed:
                raise RunError("The store is closed.")
            return self._reader.execute(sql, tuple(values)).fetchall()

    # -- writing ---------------------------------------------------------------------------------------------------
    def create_run(
        self,
        run_id: str,
        name: str,
        settings: dict[str, Any],
        plan: dict[str, Any],
        *,
        parent: str | None = None,
        from_step: int | None = None,
        estimate: dict[str, Any] | None = None,
        total_steps: int | None = None,
    ) -> None:
        """Keep a new run, queued, owned by this process; it is on disk when this returns."""

        def write(db: sqlite3.Connection) -> None:
            used = [row[0] for row in db.execute("SELECT slot FROM runs WHERE deleted IS NULL")]
            slot = min(range(COLOR_SLOTS), key=lambda s: (used.count(s), s))
            sql = (
                "INSERT INTO runs (run_id, name, created, settings, plan, estimate, parent, from_step, total_steps,"
                " slot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            )
            texts = (json.dumps(settings), json.dumps(plan), None if estimate is None else json.dumps(estimate))
            db.execute(sql, (run_id, name, self.clock(), *texts, parent, from_step, total_steps, slot))
            _bump(db)

        self.own(run_id)
        try:
            self._change(write)
        except BaseException:
            self.disown(run_id)
            raise

    def append(self, event: Event) -> None:
        """Hand an event to the writer; returns at once. Visible to readers within about a tenth of a second."""
        self._todo.put(event)

    def flush(self) -> None:
        """Wait until everything appended so far is on disk."""
        self._change(lambda db: None)

    def rename(self, run_id: str, name: str) -> None:
        self._set(run_id, "name", name)

    def note(self, run_id: str, note: str) -> None:
        self._set(run_id, "note", note)

    def delete(self, run_id: str) -> None:
        """Hide a run; its points and files stay, so that undelete brings everything back."""
        self._set(run_id, "deleted", self.clock())

    def undelete(self, run_id: str) -> None:
        self._set(run_id, "deleted", None)

    def _set(self, run_id: str, column: str, value: Any) -> None:
        def write(db: sqlite3.Connection) -> None:
            if db.execute(f"UPDATE runs SET {column} = ? WHERE run_id = ?", (value, run_id)).rowcount:
                _bump(db)

        self.run(run_id)
        self._change(write)

    # -- whose run is it -------------------------------------------------------------------------------------------
    def own(self, run_id: str) -> bool:
        """Take a run's lock for this process; False where another living process holds it."""
        return self._locks.take(run_id)

    def disown(self, run_id: str) -> None:
        self._locks.release(run_id)

    def mark_interrupted(self) -> list[str]:
        """Runs that say they are running and whose process is gone become `interrupted`; returns their ids."""
        marked = []
        for row in self.active_runs():
            if row.state == "queued" or self._locks.held(row.run_id) or not self.own(row.run_id):
                continue
            # looked at again under the lock: its owner may have ended it properly in between
            row = self.run(row.run_id)
            if row.active:
                sql = "SELECT coalesce(max(seq), -1) + 1 FROM events WHERE run_id = ? AND attempt = ?"
                seq = self._rows(sql, (row.run_id, row.attempt))[0][0]
                message = f"The server stopped while this run was at step {row.step}; every point up to there is kept."
                data = {"step": row.step, "message": message}
                head = {"run_id": row.run_id, "attempt": row.attempt, "seq": seq, "time": self.clock()}
                self.append(Event(**head, kind="interrupted", data=data))
                marked.append(row.run_id)
                self.flush()
            self.disown(row.run_id)
        return marked

    def adopt_queued(self) -> list[RunRow]:
        """Queued runs nobody owns any more, now owned by this process, in their order."""
        adopted = []
        for row in self.active_runs():
            if row.state != "queued" or self._locks.held(row.run_id) or not self.own(row.run_id):
                continue
            if self.run(row.run_id).state == "queued":  # looked at again under the lock
                adopted.append(row)
            else:
                self.disown(row.run_id)
        return adopted

    def close(self) -> None:
        """Write what is waiting and let go of file and locks. Closing twice is harmless."""
        if self._closed:
            return
        self._todo.put(None)
        self._writer.join(timeout=10)
        with self._read_lock:
            self._closed = True
            self._reader.close()
        self._locks.release_all()

    # -- the writer thread -----------------------------------------------------------------------------------------
    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.home / STORE, timeout=15, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _change(self, work: Callable[[sqlite3.Connection], None]) -> None:
        if self._closed or not self._writer.is_alive():
            raise RunError("The store is closed.")
        done: Future[None] = Future()
        self._todo.put((work, done))
        done.result(timeout=60)

    def _write_loop(self) -> None:
        db = self._connect()
        open_ = True
        while open_:
            batch = self._next_batch()
            open_ = batch[-1] is not None
            work = batch if open_ else batch[:-1]
            while work:
                try:
                    self._write(db, work)
                    self.trouble = None
                    break
                except sqlite3.Error as error:  # disk full, a locked file: say so, keep the events, try again
                    log.exception("cannot write to %s", self.home)
                    self.trouble = f"Nothing can be stored in {self.home}: {error}. Nothing is lost yet. Disk full?"
                    for item in work:
                        if isinstance(item, tuple) and not item[1].done():
                            item[1].set_exception(RunError(self.trouble))
                    work = [item for item in work if isinstance(item, Event)]
                    if not open_:
                        break
                    time.sleep(0.5)
        db.close()

    def _next_batch(self) -> list[Any]:
        """The next things to write: what comes within a moment, together; somebody waiting ends the moment."""
        batch = [self._todo.get()]
        deadline = time.monotonic() + BATCH_SECONDS
        while isinstance(batch[-1], Event):
            try:
                batch.append(self._todo.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def _write(self, db: sqlite3.Connection, batch: list[Any]) -> None:
        ended: list[str] = []
        answers: list[tuple[Future[None], BaseException | None]] = []
        db.execute("BEGIN IMMEDIATE")
        try:
            for item in batch:
                # each stands alone: what one of them raises undoes that one, and the others of the batch are stored
                db.execute("SAVEPOINT item")
                try:
                    if isinstance(item, Event):
                        stored = _insert_event(db, item)
                        if stored and item.kind in END_KINDS:
                            ended.append(item.run_id)
                    else:
                        item[0](db)
                        answers.append((item[1], None))
                except Exception as error:
                    if isinstance(error, sqlite3.Error) and not isinstance(error, FAULTS_OF_AN_ITEM):
                        raise  # the disk or the file, not the item: the whole batch is tried again
                    db.execute("ROLLBACK TO item")
                    if isinstance(item, Event):
                        log.exception("an event of run %s was dropped: %s", item.run_id, item.kind)
                    else:
                        answers.append((item[1], RunError(f"This cannot be stored: {error}.")))
                db.execute("RELEASE item")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        for run_id in ended:  # only now: the end is on disk, so nobody can take this run for interrupted
            self._locks.release(run_id)
        for done, refusal in answers:
            if refusal is None:
                done.set_result(None)
            else:
                done.set_exception(refusal)


def _bump(db: sqlite3.Connection) -> None:
    db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'version'")


def _insert_event(db: sqlite3.Connection, event: Event) -> bool:
    """Store one event and what follows from it for its run; False where it was there already."""
    value = event.data.get("loss")
    sql = (
        "INSERT INTO events (run_id, attempt, seq, time, kind, step, value, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run_id, attempt, seq) DO NOTHING"
    )
    keys = (event.run_id, event.attempt, event.seq, event.time, event.kind)
    text = json.dumps(event.data, separators=(",", ":"))  # ASCII: halves of characters are escapes in it
    if not db.execute(sql, (*keys, event.data.get("step"), value, text)).rowcount:
        return False
    changes = row_changes(event)
    if changes:
        assignments = ", ".join(f"{column} = {expression}" for column, (expression, _) in changes.items())
        values = [
            whole_characters(one) if isinstance(one, str) else one for _, given in changes.values() for one in given
        ]
        sql = f"UPDATE runs SET {assignments} WHERE run_id = ? AND attempt <= ?"
        db.execute(sql, (*values, event.run_id, event.attempt))
    if event.kind not in POINT_KINDS:
        _bump(db)
    return True
