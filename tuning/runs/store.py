"""The store: every run and every event of it, in one SQLite file; the only module with SQL.

Events come from an executor through `append`, from any thread, which never waits for the disk. The points of curves are
read after a cursor, which is the store's own increasing row number, so that a second attempt or an event delivered
twice cannot confuse it.

One writer thread commits in batches. Readers see only what is committed, so whatever a browser was shown survives a
kill -9 of the process. A run that is queued or running belongs to one process, which holds a lock on a small file as
long as it lives; a run whose state is "running" and whose lock is free was interrupted.

A list, a free name and an expected time are answered by an index, never by reading all runs. A folder that may only be
read, and a damaged file, can be opened: what is readable is shown, and `trouble` says what is wrong.
"""

import json
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tuning.core.errors import Problem, RunError, whole_characters
from tuning.core.locks import OwnerLocks
from tuning.core.visitor import current_visitor
from tuning.runs.events import END_KINDS, Event
from tuning.runs.run_row import (
    ACTIVE_STATES,
    COLUMNS,
    LINE_COLUMNS,
    LISTED_KINDS,
    RunRow,
    named_sources,
    row_changes,
    timing_key,
)
from tuning.settings.versions import upgrade

log = logging.getLogger(__name__)

STORE = "runs.sqlite"
"""The file in a home folder."""
BATCH_SECONDS = 0.05
FAULTS_OF_AN_ITEM = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite raises for a wrong value; its other errors are about the disk or the file."""
FIRST_LOAD_LIMIT = 2_000
COLOR_SLOTS = 8
"""As many as the page has colours."""
POINT_KINDS = ("step", "eval")
LIST_LINES = 200
"""How many runs a list holds; older ones are asked for by the number of the last."""
EVENTS_AT_ONCE = 5_000
"""How many events one write deletes, so that others can write in between."""
PAGES_AT_ONCE = 2_000
ACTIVE_RUNS = f"runs INDEXED BY states WHERE state IN ({', '.join('?' * len(ACTIVE_STATES))})"
"""The few runs that have not ended, by the index of states, which SQLite would not choose by itself."""
NO_STORE, DAMAGED, READ_ONLY, NOT_OPENED = 26, 11, 8, 14
"""SQLite's error codes for a file that cannot be used."""

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
        converted, notices = upgrade(json.loads(settings))
        changed = json.loads(plan)
        if not notices:
            continue
        if isinstance(changed.get("settings"), dict):
            changed["settings"] = converted
        changed["notices"] = [*changed.get("notices", ()), *(notice.to_dict() for notice in notices)]
        values = (json.dumps(converted), json.dumps(changed), run_id)
        db.execute("UPDATE runs SET settings = ?, plan = ? WHERE run_id = ?", values)


def _owners(db: sqlite3.Connection) -> None:
    """The browser that a run belongs to; runs from before belong to whoever runs the program."""
    db.execute("ALTER TABLE runs ADD COLUMN owner TEXT")


def _answers_by_index(db: sqlite3.Connection) -> None:
    """Columns, tables and indexes by which lists, changes, names, expected times and deletions are answered."""
    for statement in (
        "ALTER TABLE runs ADD COLUMN changed INTEGER NOT NULL DEFAULT 0",  # the version of the list that first had it
        "ALTER TABLE runs ADD COLUMN timed_as TEXT",
        "ALTER TABLE runs ADD COLUMN rate REAL",  # seconds a token, from its end on
        "CREATE TABLE sources (what TEXT NOT NULL, run_id TEXT NOT NULL, PRIMARY KEY (what, run_id)) WITHOUT ROWID",
        "CREATE TABLE removed (run_id TEXT PRIMARY KEY, changed INTEGER NOT NULL)",
        "CREATE INDEX listed ON runs (deleted, number, name, run_id)",
        "CREATE INDEX changes ON runs (changed)",
        "CREATE INDEX states ON runs (state, number)",
        "CREATE INDEX names ON runs (name)",
        "CREATE INDEX children ON runs (parent)",
        "CREATE INDEX timings ON runs (timed_as, number) WHERE rate IS NOT NULL",
        "CREATE INDEX source_runs ON sources (run_id)",
        "CREATE INDEX removals ON removed (changed)",
    ):
        db.execute(statement)
    ended = "ended IS NOT NULL AND seconds > 0 AND input_tokens > 0"
    db.execute(f"UPDATE runs SET rate = seconds * 1.0 / input_tokens WHERE {ended}")
    for run_id, settings, plan in db.execute("SELECT run_id, settings, plan FROM runs").fetchall():
        _store_index_keys(db, run_id, json.loads(settings), json.loads(plan))


def _store_index_keys(db: sqlite3.Connection, run_id: str, settings: dict[str, Any], plan: dict[str, Any]) -> None:
    """Store which runs this run's time is like, and what it was made from."""
    device = (plan.get("device") or {}).get("kind")
    db.execute("UPDATE runs SET timed_as = ? WHERE run_id = ?", (timing_key(settings, device), run_id))
    named = [(whole_characters(what), run_id) for what in named_sources(settings)]
    db.executemany("INSERT OR IGNORE INTO sources VALUES (?, ?)", named)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _first_tables,
    _settings_of_today,
    _owners,
    _answers_by_index,
)
"""Each changes a store of the version before to its own; the version (SQLite's user_version) counts those made. The
first finds its tables already in stores from before there were versions."""


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
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class RunStore:
    """All runs under one home folder."""

    def __init__(self, home: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.home = Path(home).expanduser()
        self.runs_folder = self.home / "runs"
        self.clock = clock
        self.unsound: str | None = None  # why nothing can ever be written here, in words
        self._unwritten: str | None = None  # why nothing can be written just now
        self._locks = OwnerLocks(self.home / "locks")
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._read_lock = threading.Lock()
        self._closed = False
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.home, error.strerror or str(error)) from None
        try:
            self._reader, self.store_id = self._open()
        except sqlite3.Error as error:
            if _code(error) not in (READ_ONLY, NOT_OPENED) or not (self.home / STORE).is_file():
                raise self._not_opened(error) from None
            self._reader, self.store_id = self._open_read_only()
        self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        if self.unsound is None:
            self._writer.start()

    def _open(self) -> tuple[sqlite3.Connection, str]:
        db = self._connect()
        try:
            _migrate(db, self.home)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?), ('version', '1')", (uuid.uuid4().hex[:12],))
            return db, str(db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])
        except BaseException:
            db.close()
            raise

    def _open_read_only(self) -> tuple[sqlite3.Connection, str]:
        """A store in a folder that may only be read. Raises RunError where its version is not today's."""
        address = (self.home / STORE).resolve().as_uri()
        for how in ("mode=ro", "mode=ro&immutable=1"):  # the second where not even the log beside it can be opened
            db = sqlite3.connect(f"{address}?{how}", uri=True, isolation_level=None, check_same_thread=False)
            try:
                version = int(db.execute("PRAGMA user_version").fetchone()[0])
                store_id = str(db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])
            except sqlite3.Error as error:
                db.close()
                failure = error
                continue
            if version != len(MIGRATIONS):
                db.close()
                raise _unusable(self.home, "it may only be read, and its runs were stored by another version")
            self.unsound = (
                f"{self.home} can only be read: runs can be looked at, but none started or changed. Make the folder"
                " writable, or name another with --home."
            )
            return db, store_id
        raise self._not_opened(failure)

    def _not_opened(self, error: sqlite3.Error) -> RunError:
        if _code(error) in (NO_STORE, DAMAGED):
            message = (
                f"{self.home / STORE} is no store of runs, or is damaged where it begins ({error}). Move it and the"
                f" files {STORE}-wal and {STORE}-shm beside it to another place and start again (the folders of the"
                " runs stay), put a copy of it back, or name another folder with --home."
            )
            return RunError(message, [Problem("home", str(self.home), "a folder of runs", message)])
        return _unusable(self.home, str(error))

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written, in words for a person."""
        return self.unsound or self._unwritten

    # -- reading ---------------------------------------------------------------------------------------------------
    def list_version(self) -> int:
        """The version of the run list: a number that each change of the list increases, and new points alone do not."""
        rows = self._read_or_default([(0,)], self._rows, "SELECT value FROM meta WHERE key = 'version'")
        return int(rows[0][0])

    def runs(self, include_deleted: bool = False) -> list[RunRow]:
        """Newest first."""
        where = "true" if include_deleted else "deleted IS NULL"
        only_own, owner = _of_visitor()
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE {where}{only_own} ORDER BY number DESC", owner)
        return [RunRow.from_values(row) for row in rows]

    def active_runs(self, include_deleted: bool = False) -> list[RunRow]:
        """Queued, running and paused runs, in the order they were asked for."""
        only_own, owner = _of_visitor()
        there = "" if include_deleted else " AND deleted IS NULL"
        sql = f"SELECT {', '.join(COLUMNS)} FROM {ACTIVE_RUNS}{there}{only_own} ORDER BY number"
        return [RunRow.from_values(row) for row in self._rows(sql, (*ACTIVE_STATES, *owner))]

    def active_lines(self) -> list[dict[str, Any]]:
        """Active runs without settings, plan and estimate: their progress."""
        only_own, owner = _of_visitor()
        sql = f"SELECT {', '.join(LINE_COLUMNS)} FROM {ACTIVE_RUNS} AND deleted IS NULL{only_own} ORDER BY number"
        return [_line(row) for row in self._read_or_default([], self._rows, sql, (*ACTIVE_STATES, *owner))]

    def lines(
        self, before: int | None = None, find: str = "", deleted: bool = False, limit: int = LIST_LINES
    ) -> list[dict[str, Any]]:
        """Runs without settings, plan and estimate, newest first: those before a number, those whose name or id holds
        a text, or the deleted ones."""
        where, values = ["deleted IS NOT NULL" if deleted else "deleted IS NULL"], list[Any]()
        if before is not None:
            where.append("number < ?")
            values.append(before)
        if find:
            where.append("(instr(lower(name), lower(?)) OR run_id = lower(?))")
            values += [whole_characters(find)] * 2
        try:
            return self._lines(f"{' AND '.join(where)} ORDER BY number DESC LIMIT ?", [*values, limit])
        except RunError:
            if self.unsound is None:
                raise
            return self._readable_lines(before, find, deleted, limit)

    def _readable_lines(self, before: int | None, find: str, deleted: bool, limit: int) -> list[dict[str, Any]]:
        """What `lines` returns, read run by run from a damaged store: those that cannot be read are left out."""
        lines: list[dict[str, Any]] = []
        last = self._read_or_default(len(list(self.runs_folder.glob("r*"))), self.last_number)
        for number in range(min(last, (before or last + 1) - 1), 0, -1):
            lines += [
                line
                for line in self._read_or_default([], self._lines, "number = ?", (number,), "runs NOT INDEXED")
                if (line["deleted"] is not None) == deleted
                and (find.lower() in line["name"].lower() or line["run_id"] == find)
            ]
            if len(lines) >= limit:
                break
        return lines

    def _read_or_default(self, default: Any, read: Callable[..., Any], *arguments: Any) -> Any:
        """What `read` returns, or `default` where that part of the file is damaged."""
        try:
            return read(*arguments)
        except RunError:
            if self.unsound is None:
                raise
            return default

    def lines_of(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """These runs, as in a list, newest first; what is deleted or not there is left out."""
        lines = [line for run_id in run_ids for line in self._lines("run_id = ? AND deleted IS NULL", (run_id,))]
        return sorted(lines, key=lambda line: -line["number"])

    def changes_after(self, version: int, limit: int = LIST_LINES) -> tuple[list[dict[str, Any]], list[str]] | None:
        """What has changed in the list since a version of it: runs, and ids of those that are gone.

        None where that is more than a list holds, or where this store never had that version.
        """
        if version > self.list_version():
            return None
        lines = self._lines("changed > ? LIMIT ?", (version, limit + 1), "runs INDEXED BY changes")
        purged = self._rows("SELECT run_id FROM removed WHERE changed > ? LIMIT ?", (version, limit + 1))
        if len(lines) + len(purged) > limit:
            return None
        lines.sort(key=lambda line: -line["number"])
        deleted = [line["run_id"] for line in lines if line["deleted"] is not None]
        return [line for line in lines if line["deleted"] is None], [*deleted, *(row[0] for row in purged)]

    def _lines(self, where: str, values: Sequence[Any], table: str = "runs") -> list[dict[str, Any]]:
        only_own, owner = _of_visitor()
        sql = f"SELECT {', '.join(LINE_COLUMNS)} FROM {table} WHERE true{only_own} AND {where}"
        return [_line(row) for row in self._rows(sql, (*owner, *values))]

    def is_taken(self, name: str) -> bool:
        """Whether a run has this name, a deleted one among them."""
        return bool(self._rows("SELECT 1 FROM runs WHERE name = ? LIMIT 1", (name,)))

    def rates(self, key: str, latest: int) -> list[float]:
        """Seconds a token of the latest runs with this `timing_key` that have ended."""
        sql = "SELECT rate FROM runs WHERE timed_as = ? AND rate IS NOT NULL ORDER BY number DESC LIMIT ?"
        return [rate for (rate,) in self._rows(sql, (key, latest))]

    def made_from(self, *sources: str) -> list[tuple[str, str]]:
        """Id and name of runs, deleted ones among them, that name one of these sources (run:ID, or a path) or what lies
        in it."""
        sql = (
            "SELECT run_id, name FROM runs WHERE run_id IN (SELECT run_id FROM sources WHERE what = ? OR"
            " what >= ? AND what < ?) ORDER BY number"
        )
        named = [
            row
            for source in map(whole_characters, sources)
            for row in self._rows(sql, (source, f"{source}/", f"{source}0"))
        ]
        return list(dict.fromkeys(named))

    def run_folder(self, run_id: str) -> Path:
        """Where a run's files are."""
        return self.runs_folder / run_id

    def sources(self, run_id: str) -> list[str]:
        """What a run was made from: run:ID, and absolute paths."""
        return [what for (what,) in self._rows("SELECT what FROM sources WHERE run_id = ? ORDER BY what", (run_id,))]

    def deleted_ids(self) -> set[str]:
        """Runs that are deleted, and not for good."""
        return {run_id for (run_id,) in self._rows("SELECT run_id FROM runs WHERE deleted IS NOT NULL")}

    def run(self, run_id: str) -> RunRow:
        only_own, owner = _of_visitor()
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM runs WHERE run_id = ?{only_own}", (run_id, *owner))
        if not rows:
            raise RunError(f"There is no run {run_id!r} here. It may have been started from another home folder.")
        try:
            return RunRow.from_values(rows[0])
        except ValueError as error:
            self.unsound = _damaged(self.home, error)
            raise RunError(self.unsound) from None

    def last_number(self) -> int:
        """How many runs there have ever been; those deleted for good are counted, so that no id comes again."""
        return int(self._rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'runs'")[0][0])

    def events(self, run_id: str, kind: str | None = None) -> list[Event]:
        """Every event of a run, or those of one kind, in the order they were stored."""
        if not self._is_visible(run_id):
            return []
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
        return {
            run_id: {"id": texts["id"], **{kind: [json.loads(text) for text in texts[kind]] for kind in POINT_KINDS}}
            for run_id, texts in self.series_texts(cursors, limit).items()
        }

    def series_texts(self, cursors: dict[str, int], limit: int = FIRST_LOAD_LIMIT) -> dict[str, dict[str, Any]]:
        """What `series_after` returns, with each point as the JSON text that is stored, to be sent as it is."""
        answer: dict[str, dict[str, Any]] = {}
        for run_id, after in cursors.items():
            texts = self._read_or_default(None, self._series, run_id, after, limit)
            if texts is not None:
                answer[run_id] = texts
        return answer

    def _series(self, run_id: str, after: int, limit: int) -> dict[str, Any] | None:
        # one kind at a time, which the index answers from its end
        sql = "SELECT max(id) FROM events WHERE run_id = ? AND kind = ?"
        newest = max(self._rows(sql, (run_id, kind))[0][0] or 0 for kind in POINT_KINDS)
        if not newest or not self._is_visible(run_id):
            return None
        points = {kind: self._points(run_id, kind, after, newest, limit) for kind in POINT_KINDS}
        return {"id": newest, **points}

    def _is_visible(self, run_id: str) -> bool:
        """Whether the present visitor may see this run."""
        only_own, owner = _of_visitor()
        return not only_own or bool(self._rows(f"SELECT 1 FROM runs WHERE run_id = ?{only_own}", (run_id, *owner)))

    def _points(self, run_id: str, kind: str, after: int, newest: int, limit: int) -> list[str]:
        span = (run_id, kind, after, newest)
        where = "run_id = ? AND kind = ? AND id > ? AND id <= ?"
        count, first, last = self._rows(f"SELECT count(*), min(step), max(step) FROM events WHERE {where}", span)[0]
        if not count:
            return []
        if count <= limit:
            return [data for (data,) in self._rows(f"SELECT data FROM events WHERE {where} ORDER BY id", span)]
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
        return [data for (data,) in self._rows(sql, (json.dumps(sorted(keep)),))]

    def _rows(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._read_lock:
            if self._closed:
                raise RunError("The store is closed.")
            try:
                return self._reader.execute(sql, tuple(values)).fetchall()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self.unsound = _damaged(self.home, error)
                raise RunError(self.unsound) from None

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
        """Store a new queued run of the present visitor, and claim it. It is on the disk when this returns."""
        owner = current_visitor().owner

        def write(db: sqlite3.Connection) -> None:
            newest = "SELECT slot FROM runs WHERE deleted IS NULL ORDER BY number DESC LIMIT ?"
            used = [row[0] for row in db.execute(newest, (LIST_LINES,))]
            slot = min(range(COLOR_SLOTS), key=lambda index: (used.count(index), index))
            sql = (
                "INSERT INTO runs (run_id, name, created, settings, plan, estimate, parent, from_step, total_steps,"
                " slot, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            )
            texts = (json.dumps(settings), json.dumps(plan), None if estimate is None else json.dumps(estimate))
            db.execute(sql, (run_id, name, self.clock(), *texts, parent, from_step, total_steps, slot, owner))
            _store_index_keys(db, run_id, settings, plan)
            _next_list_version(db, run_id)

        try:
            self.claim(run_id)
            self._change(write)
        except BaseException:
            self.release(run_id)
            raise

    def check_writable(self) -> None:
        """Raises RunError where nothing can ever be stored here."""
        if self.unsound is not None:
            raise RunError(self.unsound)

    def append(self, event: Event) -> None:
        """Pass an event to the writer thread; readers see it within about a tenth of a second."""
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

    def purge(self, run_id: str) -> None:
        """Remove a run with all its events for good, and return their space to the disk. Its children have no parent
        afterwards."""

        def some_events(db: sqlite3.Connection) -> None:
            some = "SELECT id FROM events WHERE run_id = ? LIMIT ?"
            left[0] = db.execute(f"DELETE FROM events WHERE id IN ({some})", (run_id, EVENTS_AT_ONCE)).rowcount

        def the_rest(db: sqlite3.Connection) -> None:
            for (child,) in db.execute("SELECT run_id FROM runs WHERE parent = ?", (run_id,)).fetchall():
                db.execute("UPDATE runs SET parent = NULL, from_step = NULL WHERE run_id = ?", (child,))
                _next_list_version(db, child)
            _next_list_version(db, run_id)
            db.execute("INSERT OR REPLACE INTO removed SELECT run_id, changed FROM runs WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM sources WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

        def some_pages(db: sqlite3.Connection) -> None:
            before = left[0]
            db.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
            left[0] = db.execute("PRAGMA freelist_count").fetchone()[0]
            if left[0] == before:  # a file that an earlier version made cannot shrink
                left[0] = 0

        left = [1]
        while left[0]:
            self._change(some_events)
        self._change(the_rest)
        left = [-1]
        while left[0]:
            self._change(some_pages)

    def _set(self, run_id: str, column: str, value: Any) -> None:
        def write(db: sqlite3.Connection) -> None:
            if db.execute(f"UPDATE runs SET {column} = ? WHERE run_id = ?", (value, run_id)).rowcount:
                _next_list_version(db, run_id)

        self.run(run_id)
        self._change(write)

    # -- owners of runs -------------------------------------------------------------------------------------------
    def claim(self, run_id: str) -> bool:
        """Make this process the owner of a run; False where another living process is."""
        return self._locks.take(run_id)

    def release(self, run_id: str) -> None:
        """End this process's ownership of a run."""
        self._locks.release(run_id)

    def claim_killed(self) -> list[str]:
        """Claim the runs whose owner was killed, whatever their state; returns their ids."""
        return [run_id for run_id in self._locks.left() if self.claim(run_id)]

    def mark_interrupted(self) -> list[str]:
        """Mark the running and paused runs whose process is gone as `interrupted`; returns their ids.

        Queued ones are left for `requeue_orphans`.
        """
        marked = []
        for row in self.active_runs(include_deleted=True):  # one that is undeleted must not be shown as running
            if row.state == "queued" or self._locks.held(row.run_id) or not self.claim(row.run_id):
                continue
            # read again with the lock: its owner may have ended it properly in between
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
            self.release(row.run_id)
        return marked

    def requeue_orphans(self) -> list[RunRow]:
        """Claim the queued runs whose process is gone; returns them in their order."""
        orphans = []
        for row in self.active_runs():
            if row.state != "queued" or self._locks.held(row.run_id) or not self.claim(row.run_id):
                continue
            if self.run(row.run_id).state == "queued":  # read again with the lock
                orphans.append(row)
            else:
                self.release(row.run_id)
        return orphans

    def close(self) -> None:
        """Write what is waiting and let go of file and locks. Closing twice is harmless."""
        if self._closed:
            return
        self._todo.put(None)
        if self._writer.is_alive():
            self._writer.join(timeout=10)
        with self._read_lock:
            self._closed = True
            self._reader.close()
        self._locks.release_all()

    # -- the writer thread -----------------------------------------------------------------------------------------
    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.home / STORE, timeout=15, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything else: it is taken by a new file alone
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _change(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self.check_writable()
        if self._closed or not self._writer.is_alive():
            raise RunError("The store is closed.")
        done: Future[None] = Future()
        self._todo.put((work, done))
        try:
            done.result(timeout=60)
        except TimeoutError:
            raise RunError(self.trouble or f"{self.home} did not take this within a minute. Try again.") from None

    def _write_loop(self) -> None:
        db = self._connect()
        is_open = True
        while is_open:
            items = self._next_batch()
            if items[-1] is None:
                is_open = False
                items.pop()
            is_open = self._write_until_stored(db, items, is_open)
        db.close()

    def _write_until_stored(self, db: sqlite3.Connection, items: list[Any], is_open: bool) -> bool:
        """Write these items; while the disk or the file refuses them, keep the events and try them again with what has
        come since. A closed store tries once. Returns whether the store is still open."""
        while items:
            try:
                self._write(db, items)
                self._unwritten = None
                break
            except sqlite3.Error as error:  # disk full, a locked file
                self._refuse_changes(items, error)
                items = [item for item in items if isinstance(item, Event)]
                if not is_open:
                    break
                time.sleep(0.5)
                # what came meanwhile waits for an answer, not for space
                while is_open and not self._todo.empty():
                    item = self._todo.get()
                    is_open = item is not None
                    items += [item] if is_open else []
        return is_open

    def _refuse_changes(self, items: list[Any], error: sqlite3.Error) -> None:
        """Say why nothing can be written, to whoever waits for one of these items to be stored and in `trouble`."""
        if self._unwritten is None:  # once, not at each try
            log.error("cannot write to %s: %s", self.home, error)
        self._unwritten = f"Nothing can be stored in {self.home}: {error}. Nothing is lost yet. Disk full?"
        if _is_damage(error):
            self.unsound = _damaged(self.home, error)
        for item in items:
            if isinstance(item, tuple) and not item[1].done():
                item[1].set_exception(RunError(self.trouble or self._unwritten))

    def _next_batch(self) -> list[Any]:
        """The next items to write: those that come within BATCH_SECONDS, or up to one that somebody waits for."""
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
                # an error of one item undoes that item, and the others of the batch are stored
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
            if db.in_transaction:  # a full disk ends it by itself
                db.execute("ROLLBACK")
            raise
        for run_id in ended:  # only now: the end is on disk, so nobody can take this run for interrupted
            self._locks.release(run_id)
        for done, refusal in answers:
            if refusal is None:
                done.set_result(None)
            else:
                done.set_exception(refusal)


def _of_visitor() -> tuple[str, tuple[str, ...]]:
    """The end of a query's condition that selects the runs of the present visitor, with the value for its mark."""
    owner = current_visitor().owner
    return ("", ()) if owner is None else (" AND owner = ?", (owner,))


def _line(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(LINE_COLUMNS, values, strict=True))


def _next_list_version(db: sqlite3.Connection, run_id: str) -> None:
    """Begin a new version of the list, in which this run has changed."""
    db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'version'")
    version = "(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'version')"
    db.execute(f"UPDATE runs SET changed = {version} WHERE run_id = ?", (run_id,))


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in (NO_STORE, DAMAGED) or "decode to UTF-8" in str(error)


def _damaged(home: Path, error: Exception) -> str:
    return (
        f"{home / STORE} is damaged ({error}): what can be read of it is shown, and nothing can be started or changed."
        f" Put a copy of it back, or save what is readable: sqlite3 {STORE} .recover | sqlite3 new.sqlite"
    )


def _unusable(home: Path, why: str) -> RunError:
    message = f"{home} cannot hold runs: {why}. Name another folder with --home."
    return RunError(message, [Problem("home", str(home), "a folder that can be written", message)])


def _insert_event(db: sqlite3.Connection, event: Event) -> bool:
    """Store one event and the changes of its run that follow from it; False where it is stored already."""
    value = event.data.get("loss")
    sql = (
        "INSERT INTO events (run_id, attempt, seq, time, kind, step, value, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run_id, attempt, seq) DO NOTHING"
    )
    keys = (event.run_id, event.attempt, event.seq, event.time, event.kind)
    text = json.dumps(event.data, separators=(",", ":"))  # ASCII: halves of characters are escapes in it
    if not db.execute(sql, (*keys, event.data.get("step"), value, text)).rowcount:
        return False
    listed = event.kind in LISTED_KINDS
    if event.kind == "phase":  # the first one means that the run is running; the others are progress
        listed = db.execute("SELECT state FROM runs WHERE run_id = ?", (event.run_id,)).fetchone() == ("queued",)
    changes = row_changes(event)
    if changes:
        assignments = ", ".join(f"{column} = {expression}" for column, (expression, _) in changes.items())
        values = [
            whole_characters(value) if isinstance(value, str) else value
            for _, values_of_column in changes.values()
            for value in values_of_column
        ]
        sql = f"UPDATE runs SET {assignments} WHERE run_id = ? AND attempt <= ?"
        db.execute(sql, (*values, event.run_id, event.attempt))
    if listed:
        _next_list_version(db, event.run_id)
    return True
