"""Everything that can be done with runs, for the page, the routes and the command line alike.

Settings become a plan, the plan a job, the job goes to the executor, and its events go to the store. A run's folder is
home/runs/RUN_ID.
"""

import importlib
import json
import logging
import statistics
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from tuning.core.disk_usage import remove
from tuning.core.errors import Problem, RunError, SettingsError, whole_characters
from tuning.core.hardware import named_device
from tuning.core.visitor import current_visitor
from tuning.data import open_data, short_name
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.peak_batches import update_batches_pending
from tuning.memory.tracing.table_cache import TableMaker
from tuning.memory.usage import MemoryUsage, usage_of, workloads_of
from tuning.memory.what_if import WhatIf, what_if
from tuning.methods import method_named
from tuning.models.base_model import BaseModel
from tuning.models.weights import compare_weights
from tuning.plan.inputs import base_model
from tuning.plan.plan import Plan, changed_since, plan_for
from tuning.runs.ask import ASK_SECONDS, OnPiece, PendingAnswer, SavedAnswers, WaitingQuestions, put_live
from tuning.runs.disk import DiskUse, RunDisk
from tuning.runs.events import Emitter
from tuning.runs.executors.base import Executor, RunHandle
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.results import ARTIFACT_KINDS, Results, ResultState, refuse_changed_base
from tuning.runs.run_row import RunRow, timing_key
from tuning.runs.store import RunStore
from tuning.settings.schema import Settings
from tuning.text import import_lock
from tuning.text.question import Question
from tuning.training.checkpoint_files import RecoverySource
from tuning.training.job import Job
from tuning.training.kernel_downloads import block_kernel_downloads

log = logging.getLogger(__name__)

WARM_MODULES = ("torch", "transformers.models.llama.modeling_llama", "peft", "tuning.training.session")
WARM_SECONDS = 600.0
NAME_LENGTH, NOTE_LENGTH = 80, 2_000
TIMED_RUNS = 5
RESUMABLE = ("interrupted", "cancelled", "failed")
"""The ends after which a run may be resumed."""
ANSWERING = ("last", "best")
"""The weights of a run that has ended which can be asked."""
WATCH_SECONDS = 5.0
"""Seconds between two searches for runs that other processes on this home have left behind."""
DATA_LETTERS = 28
"""Characters of the data's name in the default name of a run."""


class ResultStates(TypedDict):
    """The state of each kind of artifact of a run, and the step that the run would resume from.

    `go_on` is 0 where it would begin anew, and None where it cannot be resumed. `recovered_from` says which stored
    weights the artifact of a run that was cut off is or will be made from; None where its own end saved it.
    """

    forms: dict[str, ResultState]
    go_on: int | None
    recovered_from: RecoverySource | None


class MemoryAnswer(WhatIf):
    """The answer of POST /fork/memory; `pending` says that the exact table is being made."""

    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would be, before it is started."""

    plan: Plan
    usage: MemoryUsage
    """The memory of the plan on the device that was named, or else on this machine."""
    estimate: MemoryEstimate
    seconds: float | None
    """Expected duration; None until a run like it has been timed here."""
    pending: bool
    """Whether a table was being made when the estimate was found, so that there will be a better one soon."""


class RunService:
    """Everything that can be done with runs."""

    def __init__(self, home: Path | str, executor: Executor | None = None, store: RunStore | None = None) -> None:
        block_kernel_downloads()  # a tokenizer, a merge or a run may be the first to import a library
        self.home = Path(home).expanduser().resolve()
        self.store = store or RunStore(self.home)
        self.executor: Executor = executor or ThreadExecutor()
        self._handles: dict[str, RunHandle] = {}
        self._disk = RunDisk(self.store)
        self._change_lock = threading.Lock()
        """Held while a run is started, resumed or deleted for good, so that two requests do not do so at once."""
        self._closing = threading.Event()
        self._tables: TableMaker | None = None
        self._answers = SavedAnswers(self.executor)
        self._questions = WaitingQuestions()
        self._results = Results(self.store, self.executor)

    def recover(self) -> None:
        """Take over from servers that are gone: their files left half done are removed, their runs marked or queued."""
        self._recover_runs(clear_killed=True)

    def _recover_runs(self, *, clear_killed: bool) -> None:
        """Mark running and paused runs of processes that are gone as interrupted, and submit their queued runs here.

        `clear_killed` has what killed processes left half done removed first. Nothing happens where the store is opened
        for reading only.
        """
        if self.store.unsound is not None:  # opened for reading only
            return
        try:
            if clear_killed:
                self._disk.clear_killed()
            self.store.mark_interrupted()
            queued = self.store.requeue_orphans()
        except RunError:
            if self.store.unsound is None:
                raise
            return  # damaged: what can be read is shown, with a message
        for row in queued:
            try:
                job = self._job_of(row)
                with self._change_lock:
                    self._submit_next_attempt(row, job)
            except RunError as error:
                Emitter(row.run_id, row.attempt + 1, self.store.append)("failed", message=str(error), step=row.step)

    def watch(self, seconds: float = WATCH_SECONDS) -> None:
        """Recover runs every so many `seconds`: another server on this home may be killed while this one lives."""

        def recover_often() -> None:
            while not self._closing.wait(seconds):
                try:
                    self._recover_runs(clear_killed=False)
                except Exception:  # closed in between, or a disk that is full: the next time may go well
                    log.info("could not recover runs that were left behind", exc_info=True)

        threading.Thread(target=recover_often, name="watch", daemon=True).start()

    # -- before a run ----------------------------------------------------------------------------------------------
    def preview(self, settings: Any, device: str | None = None) -> Preview:
        """The plan on this machine, with the estimate on it or on a named device. Raises TuningError."""
        plan = plan_for(settings, self._results.model)
        on_device = plan.with_device(named_device(device)) if device else plan
        # read before the estimate: where the table comes a moment later, the estimate has to be made once more
        # a list, and no generator that `any` leaves early: each missing table must be asked for
        pending = self._tables is not None and any(
            [self._tables.want(workload) for workload in workloads_of(on_device)]
        )
        pending = pending or update_batches_pending(plan)
        usage = usage_of(on_device)
        seconds = self.expected_seconds(plan)
        return Preview(plan=plan, usage=usage, estimate=estimate(usage), seconds=seconds, pending=pending)

    def wait_for_weight_check(self, settings: Settings, seconds: float) -> bool:
        """Wait at most `seconds` until the base model's tensors are compared with those of its architecture.

        Returns whether they are. Raises TuningError where they do not match.
        """
        return compare_weights(self.base_model(settings), settings.task, seconds) is not None

    def base_model(self, settings: Settings) -> BaseModel:
        """The base model of these settings; of a run's result nothing is merged for that. Raises ModelError."""
        return base_model(settings, self._results.model)

    def tokenizer_model(self, settings: Settings) -> BaseModel:
        """The model whose tokenizer and chat template the rows are written for. Raises ModelError.

        For a run's result that is the model which the run was trained from: it is there before the result is merged,
        and every result has its tokenizer and template.
        """
        return self._results.own_base(settings) if settings.model.startswith("run:") else self.base_model(settings)

    def what_if(self, preview: Preview) -> MemoryAnswer:
        """Memory through a step, against rows and length, what to change; `pending` is that of the estimate."""
        return {**what_if(preview.usage), "pending": preview.pending}

    def expected_seconds(self, plan: Plan) -> float | None:
        """Seconds per token of the latest runs with this model, method and device, times this plan's tokens.

        None where there is no such run.
        """
        key = timing_key(plan.settings.to_dict(), plan.device.kind)
        rates = self.store.rates(key, TIMED_RUNS) if key is not None else []
        return statistics.median(rates) * plan.value("total_tokens") if rates else None

    # -- starting and steering -------------------------------------------------------------------------------------
    def start(
        self, settings: Any, name: str | None = None, parent: str | None = None, from_step: int | None = None
    ) -> str:
        """Queue a run and return its id. Raises TuningError with all problems. Nothing is stored then."""
        preview = self.preview(settings)
        preview.plan.model.check_complete()
        name = None if name is None else _checked_text("name", name, NAME_LENGTH)
        steps = self._last_step(parent) if parent is not None else None
        if from_step is not None and not (type(from_step) is int and steps is not None and 0 <= from_step <= steps):
            limit = "a parent run" if steps is None else f"0 to {steps:,}"
            message = f"from_step needs a parent and one of its steps: {limit}."
            raise SettingsError([Problem("from_step", from_step, limit, message)])
        if preview.plan.model.source == "run":
            # the base must exist before the plan is final: make it, now that all is checked, then plan again
            self._results.make_base(preview.plan.settings)
            preview = self.preview(settings)
            preview.plan.model.check_complete()
            parent = parent or _run_of(preview.plan)
        plan = preview.plan
        with self._change_lock:
            self.store.check_writable()
            try:
                run_id, folder = self._new_folder()
            except OSError as error:
                raise _cannot_store(self.home, error) from error
            try:
                job = Job(run_id=run_id, attempt=1, plan=plan, folder=str(folder))
                _write_json(folder / "settings.json", plan.settings.to_dict())
                _write_json(folder / "job.json", job.to_dict())
                self.store.create_run(
                    run_id,
                    self.free_name(name or default_name(plan)),
                    plan.settings.to_dict(),
                    _without_lists(plan.to_dict()),
                    parent=parent,
                    from_step=from_step,
                    estimate=preview.estimate.to_dict(),
                    total_steps=int(plan.value("total_steps")),
                )
            except OSError as error:
                remove(folder)
                raise _cannot_store(self.home, error) from error
            except BaseException:
                remove(folder)  # a run that is not in the store is none
                raise
            self._submit(job)
        _log_change("start", run_id)
        return run_id

    def _last_step(self, run_id: str) -> int:
        """The last step that a run has or will have."""
        row = self.store.run(run_id)
        return max(row.step, row.total_steps or 0)

    def _new_folder(self) -> tuple[str, Path]:
        number = self.store.last_number()
        while True:
            number += 1
            run_id = f"r{number:04d}"
            try:
                folder = self.run_folder(run_id)
                folder.mkdir(parents=True)
            except FileExistsError:  # another process on this home was faster, or the store's file was removed
                continue
            return run_id, folder

    def free_name(self, name: str) -> str:
        """The name, with a number behind it where it is taken. Tries doubling numbers and then halves, for there may be
        thousands of that name."""
        if not self.store.is_taken(name):
            return name
        taken, free = 1, 2
        while self.store.is_taken(f"{name} ({free})"):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if self.store.is_taken(f"{name} ({middle})") else (taken, middle)
        return f"{name} ({free})"

    def _submit(self, job: Job) -> None:
        self._answers.forget()
        self._handles = {run_id: handle for run_id, handle in self._handles.items() if handle.wait(0) is None}
        self._handles[job.run_id] = self.executor.submit(job, self.store.append)

    def resume_from_checkpoint(self, run_id: str) -> int:
        """Resume a run that has ended early from its newest checkpoint, or anew where it has none.

        Returns the step of that checkpoint, as far as can be seen without reading it. Raises RunError where the run
        cannot be resumed. A run that is paused has not ended: that is `unpause`.
        """
        job = self._job_to_resume(run_id)
        _refuse_changed(self.store.run(run_id), job.plan, "go on")
        with self._change_lock:
            self._job_to_resume(run_id)  # again with the lock: of two requests at once the second finds it queued
            row = self.store.run(run_id)
            if not self.store.claim(run_id):
                raise RunError(f"{row.name} belongs to another Tuning Fork process on this home folder.")
            # by the sizes of its files: where a checksum is wrong the worker takes the checkpoint before it, and warns
            step = self._results.checkpoint_step(row)
            self._submit_next_attempt(row, job)
            self.store.flush()
        _log_change("go on", run_id)
        return step or 0

    def _job_to_resume(self, run_id: str) -> Job:
        """The job of a run that may be resumed. Raises RunError."""
        row = self.store.run(run_id)
        if row.deleted is not None:
            raise RunError(f"{row.name} was deleted; bring it back first.")
        if row.state not in RESUMABLE:
            raise RunError(f"{row.name} is {row.state}; only a run that was cut off or stopped can go on.")
        if row.state == "failed" and self._results.checkpoint_step(row) is None:
            message = f"{row.name} failed and left no checkpoint to go on from."
            raise RunError(f"{message} Its settings can be used again for a new run.")
        return self._job_of(row)

    def _job_of(self, row: RunRow) -> Job:
        """The job of a run as it was stored. Raises RunError."""
        try:
            return Job.from_dict(json.loads((self.run_folder(row.run_id) / "job.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            log.exception("run %s", row.run_id)
            message = f"job.json of {row.name} is gone or not readable, so it cannot be started again"
            raise RunError(f"{message}; its settings can be used for a new run.") from None

    def _submit_next_attempt(self, row: RunRow, job: Job) -> None:
        """Start a further attempt, which resumes from the newest checkpoint, or begins anew."""
        self._submit(replace(job, attempt=row.attempt + 1))

    def stop(self, run_id: str) -> None:
        """End a run, saving what it has learned. One that has ended stays as it is."""
        handle = self._handle(run_id)
        if handle is not None:
            handle.cancel()
            _log_change("stop", run_id)

    def pause(self, run_id: str) -> None:
        """Hold a run before its next micro-batch. Raises RunError where it has ended."""
        handle = self._handle(run_id)
        if handle is None:
            raise RunError("Only a run that is going can be paused.")
        handle.commands.pause()

    def unpause(self, run_id: str) -> None:
        """Let a paused run continue; any other stays as it is. One that has ended is resumed from a checkpoint."""
        handle = self._handle(run_id)
        if handle is not None:
            handle.commands.unpause()

    def _handle(self, run_id: str) -> RunHandle | None:
        """The handle of a run of this process; None where it has ended and its handle is gone.

        Raises RunError where the run is in another process.
        """
        row = self.store.run(run_id)
        handle = self._handles.get(run_id)
        if handle is None and row.active:
            raise RunError(f"{row.name} belongs to another Tuning Fork process on this home folder; stop it there.")
        return handle

    def wait(self, run_id: str, timeout: float | None = None) -> str | None:
        """The run's end, once it is in the store; None when it has not come within `timeout` seconds."""
        handle = self._handle(run_id)
        ended = handle.wait(timeout) if handle is not None else self.store.run(run_id).state
        self.store.flush()
        return ended

    # -- what there is ---------------------------------------------------------------------------------------------
    def runs(self) -> list[RunRow]:
        return self.store.runs()

    def run(self, run_id: str) -> RunRow:
        return self.store.run(run_id)

    def queue_position(self, run_id: str) -> int | None:
        """How many runs go first: 0 for the one that trains; None for one that has ended or is in another process."""
        return self.executor.queue_position(run_id)

    def rename(self, run_id: str, name: Any) -> None:
        self.store.rename(run_id, _checked_text("name", name, NAME_LENGTH))

    def note(self, run_id: str, note: Any) -> None:
        self.store.note(run_id, _checked_text("note", note, NOTE_LENGTH, empty=True))

    def delete(self, run_id: str) -> None:
        """Hide a run, stopping it first; undelete brings it back with every point and file."""
        if self.store.run(run_id).active:
            self.stop(run_id)
        self.store.delete(run_id)
        _log_change("delete", run_id)

    def undelete(self, run_id: str) -> None:
        self.store.undelete(run_id)
        _log_change("undelete", run_id)

    def purge(self, run_id: str) -> int:
        """Delete a deleted run for good (`RunDisk.purge`) and return the bytes freed. Raises RunError."""
        with self._change_lock:
            freed = self._disk.purge(run_id, release_files=self._answers.forget)
        _log_change("delete for good", run_id)
        return freed

    def disk(self) -> DiskUse:
        """What the home folder takes; for a browser of a class, what its own runs and uploads take."""
        return self._disk.usage()

    def result(self, run_id: str, artifact_kind: str = "trained") -> Path:
        """The folder of an artifact: `trained`, `best`, `merged` or `best-merged`; made where it is not there. Raises
        RunError."""
        return self._results.folder(self.store.run(run_id), artifact_kind)

    def ready_result(self, run_id: str, artifact_kind: str = "trained") -> Path:
        """The folder of an artifact that is there. Raises RunError where it would have to be made first."""
        return self._results.ready(self.store.run(run_id), artifact_kind)

    def make_result(self, run_id: str, artifact_kind: str) -> None:
        """Begin to make an artifact. Raises RunError where there is no such artifact."""
        self._results.make(self.store.run(run_id), artifact_kind)

    def result_states(self, run_id: str) -> ResultStates:
        """Which artifacts there are of a run, and whether it can be resumed. Raises RunError where there is no such
        run."""
        row = self.store.run(run_id)
        states = {kind: self._results.state(row, kind) for kind in ARTIFACT_KINDS}
        return {
            "forms": states,
            "go_on": self._results.resumes_from(row),
            "recovered_from": self._results.recovery_source(row),
        }

    def run_folder(self, run_id: str) -> Path:
        """Where a run's files are."""
        return self.store.run_folder(run_id)

    def artifact_name(self, run_id: str) -> str:
        """`adapter` or `model`: what the run's method leaves behind."""
        return method_named(self.store.run(run_id).settings["method"]["name"]).artifact

    # -- asking ----------------------------------------------------------------------------------------------------
    def ask(
        self, run_id: str, question: Question, on_piece: OnPiece = lambda piece: None, weights: str = "last"
    ) -> dict[str, Any]:
        """What the base model and the trained one answer: {"base": [...], "trained": [...]}; `on_piece` gets
        the pieces as they are written. Raises RunError when there is nothing to ask, or no answer in time."""
        pending = self.put_question(run_id, question, on_piece, weights=weights)
        try:
            return pending.done.result(ASK_SECONDS)
        except TimeoutError:
            pending.too_late()
            return pending.done.result()

    def put_question(
        self,
        run_id: str,
        question: Question,
        on_piece: OnPiece = lambda piece: None,
        client: str | None = None,
        weights: str = "last",
    ) -> PendingAnswer:
        """Queue a question and return at once. `on_piece` is called in the thread that answers.

        A run that trains is asked between two of its updates, one that is paused between micro-batches, and either from
        its files where it ends before. One that has ended answers with its `last` or its `best` weights. Both models
        read the run's system prompt first. Raises RunError when there is nothing to ask, TooManyQuestions.
        """
        if weights not in ANSWERING:
            raise SettingsError([Problem("weights", weights, "last or best", "weights must be last or best.")])
        row = self.store.run(run_id)
        refuse_changed_base(row)
        chat = row.chat if question.chat is None else question.chat
        question = replace(question, chat=chat, system_prompt=row.system_prompt, special_tokens=row.special_tokens)
        handle = self._handle(run_id) if row.active else None
        if handle is not None and self.queue_position(run_id):
            raise RunError(f"{row.name} waits in line and has learned nothing yet. Ask it when it has started.")
        if handle is not None and weights == "best":
            raise RunError(f"{row.name} has not ended yet; its best weights can be asked when it has.")
        pending = PendingAnswer(row.name, on_piece)
        over = self._questions.add(run_id, client, row.name)
        pending.done.add_done_callback(lambda _: over())

        def saved() -> None:
            try:
                self._answers.put(pending, question, lambda: self._saved(run_id, weights))
            except RunError as error:  # shutting down
                pending.refuse(error)

        if handle is None:
            saved()
        else:
            put_live(pending, handle.commands, row, question, saved)
        return pending

    def _saved(self, run_id: str, weights: str) -> tuple[RunRow, Job, RecoverySource | None]:
        """A run that has ended, its job, in the folder of the weights to ask, and what those were recovered from where
        it was cut off. Raises RunError."""
        self.store.flush()  # its end event has just come
        row = self.store.run(run_id)
        job = self._job_of(row)
        if not method_named(row.settings["method"]["name"]).updates:
            _refuse_changed(row, job.plan, "answer")  # its examples and passages come from the rows
            return row, job, None
        if not self._results.has_weights(row):
            reason = "it ended before a checkpoint or an evaluation of what it learned"
            raise RunError(f"{row.name} has no weights to ask: {reason}.")
        artifact = self.result(run_id, "trained" if weights == "last" else weights)  # recovered where it was cut off
        source = self._results.recovery_source(row) if artifact.parent == self.run_folder(run_id) else None
        return row, replace(job, folder=str(artifact.parent)), source

    # -- around ----------------------------------------------------------------------------------------------------
    def warm_up(self) -> threading.Thread:
        """Import what training needs in the background, so that the first press of Start does not wait for it."""
        self._tables = TableMaker()  # from now on a missing memory table is made, in a process of its own
        # in the executor's own thread: two threads that import transformers at once get it half made
        thread = threading.Thread(target=self._warm_in_line, name="warm-up", daemon=True)
        thread.start()
        return thread

    def _warm_in_line(self) -> None:
        try:
            self.executor.run_between_updates(_import_quietly, timeout=WARM_SECONDS)
        except RunError:
            log.info("the imports of training were not warmed up in time")

    def close(self) -> None:
        """Stop what runs, keeping it, and close the store. Runs in line stay queued."""
        self._closing.set()
        if self._tables is not None:
            self._tables.close()
        self.executor.close()
        self.store.close()


def _log_change(what: str, run_id: str) -> None:
    """Log who did what, for whoever runs the server."""
    log.info("%s %s by %s", what, run_id, current_visitor().title)


def default_name(plan: Plan) -> str:
    """Method, the numbers people compare, data and task, for example "lora r8 lr 1e-3, batch 32, reviews"."""
    settings = plan.settings
    method = settings.method.name
    data = short_name(settings.data.source)
    of = f"{data if len(data) <= DATA_LETTERS else data[: DATA_LETTERS - 1] + '…'}"
    if settings.task == "sequence_classification":
        of += ", classes"
    if not method_named(method).updates:
        return f"{method_named(method).summary(settings.method)}, {of}"
    rank = getattr(settings.method, "r", None)
    rate = f"{plan.value('learning_rate'):.0e}".replace("e-0", "e-").replace("e+0", "e")
    exact = f"{plan.value('learning_rate'):g}"
    recipe = f", {settings.recipe['name']}" if settings.recipe is not None else ""
    rate = rate if float(rate) == plan.value("learning_rate") else exact
    numbers = f"lr {rate}, batch {plan.value('effective_batch')}"
    return f"{method}{f' r{rank}' if rank is not None else ''} {numbers}, {of}{recipe}"


def _refuse_changed(row: RunRow, plan: Plan, what: str) -> None:
    """Raises RunError where the rows or the base model are not those of the plan, before the run resumes or answers."""
    changed = changed_since(plan, open_data(plan.settings.data, plan.settings.task, plan.settings.seed))
    if changed:
        raise RunError(
            f"{row.name} cannot {what}, for what it was planned with has changed: {'; '.join(changed)}. Put the old"
            " files back, or start a new run."
        )


def _cannot_store(home: Path, error: OSError) -> RunError:
    return RunError(
        f"This run cannot be kept in {home}: {error.strerror or error}. Nothing was started; make room there (deleted"
        " runs can be deleted for good), or name another folder with --home."
    )


def _run_of(plan: Plan) -> str:
    """The run whose result this one starts from."""
    return plan.model.spec.removeprefix("run:").partition("/")[0]


def _without_lists(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without its long lists, such as the length of each row of data, which job.json has."""
    return {**plan, "data": {key: value for key, value in plan["data"].items() if not _is_long(value)}}


def _is_long(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 50


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _checked_text(field: str, value: Any, limit: int, empty: bool = False) -> str:
    text = value.strip() if isinstance(value, str) and whole_characters(value) == value else None
    if text is None or len(text) > limit or (not text and not empty):
        limits = f"{'0' if empty else '1'} to {limit} whole characters"
        raise SettingsError([Problem(field, value, limits, f"must have {limits}.")])
    return text


def _import_quietly(*_: Any) -> None:
    with import_lock():  # a tokenizer may be opened meanwhile, to count tokens
        for module in WARM_MODULES:
            try:
                importlib.import_module(module)
            except Exception:  # the first run will say what is wrong, to the person who starts it
                log.warning("could not warm up %s", module, exc_info=True)
