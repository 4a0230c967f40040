"""Runs, for the page, the routes and the command line alike: the one owner of the queue.

In: settings as a JSON object, and what a person wants done to a run. Out: previews, run ids, rows, answers,
folders. From here a plan becomes a job, the job goes to the executor, and its events go to the store. A run's
folder is home/runs/RUN_ID.
"""

import importlib
import json
import logging
import statistics
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.asking import SavedAnswers, Tell, ask_live
from tuning.data import open_data, short_name
from tuning.errors import Problem, RunError, SettingsError, whole_characters
from tuning.events import Emitter
from tuning.executors.base import Executor, RunHandle
from tuning.executors.thread import ThreadExecutor
from tuning.hardware import named_device
from tuning.job import Job
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.known import known
from tuning.memory.moments import windows_pending
from tuning.memory.outlook import outlook
from tuning.memory.tables import TableMaker
from tuning.methods import method_named
from tuning.models import BaseModel
from tuning.plan import Plan, base_model, changed_since, plan_for
from tuning.question import Question
from tuning.results import Results, refuse_changed_base
from tuning.rows import RunRow
from tuning.settings import Settings
from tuning.store import RunStore
from tuning.text import imports_in_line
from tuning.training.offline import keep_to_this_machine
from tuning.weights import compared

log = logging.getLogger(__name__)

WARM_MODULES = ("torch", "transformers.models.llama.modeling_llama", "peft", "tuning.training.session")
WARM_SECONDS = 600.0
NAME_LENGTH, NOTE_LENGTH = 80, 2_000
TIMED_RUNS = 5
DATA_LETTERS = 28
"""Of the data's name in the name that a run gets by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would be, before it is started."""

    plan: Plan
    against: Plan
    """The same held against the device that was named."""
    estimate: MemoryEstimate
    seconds: float | None
    """Expected duration; None until a run like it has been timed here."""
    pending: bool
    """Whether a table was being made when the estimate was found, so that there will be a better one soon."""


class RunService:
    """Everything that can be done with runs."""

    def __init__(self, home: Path | str, executor: Executor | None = None, store: RunStore | None = None) -> None:
        keep_to_this_machine()  # a tokenizer, a merge or a run may be the first to import a library
        self.home = Path(home).expanduser().resolve()
        self.store = store or RunStore(self.home)
        self.executor: Executor = executor or ThreadExecutor()
        self._handles: dict[str, RunHandle] = {}
        self._starting = threading.Lock()
        self._tables: TableMaker | None = None
        self._answers = SavedAnswers(self.executor)
        self._results = Results(self.home, self.store, self.executor)

    def recover(self) -> None:
        """Take up what a server that is gone left behind: its running run is interrupted, its queue goes on."""
        self.store.mark_interrupted()
        for row in self.store.adopt_queued():
            try:
                self._start_again(row, self._job_of(row))
            except RunError as error:
                Emitter(row.run_id, row.attempt + 1, self.store.append)("failed", message=str(error), step=row.step)

    # -- before a run ----------------------------------------------------------------------------------------------
    def preview(self, settings: Any, device: str | None = None) -> Preview:
        """The plan on this machine, with the estimate on it or on a named device. Raises TuningError."""
        plan = plan_for(settings, self._results.model)
        against = plan.on(named_device(device)) if device else plan
        # asked before the figures are: where the table comes a moment later, whoever looks must look once more
        pending = self._tables is not None and any([self._tables.want(one) for one in known(against).wanted])
        pending = pending or windows_pending(against)
        seconds = self.expected_seconds(plan)
        return Preview(plan=plan, against=against, estimate=estimate(against), seconds=seconds, pending=pending)

    def weights_known(self, settings: Settings, seconds: float) -> bool:
        """Whether the base model's tensors are compared, waiting so long for it. Raises TuningError where they are
        not the model's."""
        return compared(self.base_model(settings), settings.task, seconds) is not None

    def base_model(self, settings: Settings) -> BaseModel:
        """The base model of these settings; of a run's result nothing is merged for that. Raises ModelError."""
        return base_model(settings, self._results.model)

    def tokenizer_model(self, settings: Settings) -> BaseModel:
        """The model whose tokenizer and template rows are written for: of a run's result its own base model, whatever
        method is to train it on. Raises ModelError."""
        return self._results.own_base(settings) if settings.model.startswith("run:") else self.base_model(settings)

    def outlook(self, preview: Preview) -> dict[str, Any]:
        """Memory through a step, against rows and length, what to change; `pending` is that of the estimate."""
        return outlook(preview.against, preview.against.device) | {"pending": preview.pending}

    def expected_seconds(self, plan: Plan) -> float | None:
        """From the latest runs with this model, method and device, by the tokens they read."""
        wanted = _kind_of(plan.settings.to_dict(), plan.device.kind)
        rates = [
            row.seconds / row.input_tokens
            for row in self.store.runs(include_deleted=True)
            if row.seconds and row.input_tokens and _kind_of(row.settings, row.plan["device"]["kind"]) == wanted
        ]
        return statistics.median(rates[:TIMED_RUNS]) * plan.value("total_tokens") if rates else None

    # -- starting and steering -------------------------------------------------------------------------------------
    def start(
        self, settings: Any, name: str | None = None, parent: str | None = None, from_step: int | None = None
    ) -> str:
        """Put a run in line and answer its id. Raises TuningError with all problems, and then keeps nothing."""
        preview = self.preview(settings)
        preview.plan.model.check_complete()
        name = None if name is None else _checked_text("name", name, NAME_LENGTH)
        steps = self._last_step(parent) if parent is not None else None
        if from_step is not None and not (type(from_step) is int and steps is not None and 0 <= from_step <= steps):
            limit = "a parent run" if steps is None else f"0 to {steps:,}"
            message = f"from_step needs a parent and one of its steps: {limit}."
            raise SettingsError([Problem("from_step", from_step, limit, message)])
        if preview.plan.model.source == "run":  # all is checked, so what it starts from is made, and looked at again
            self._results.make_base(preview.plan.settings)
            preview = self.preview(settings)
            preview.plan.model.check_complete()
            parent = parent or _run_of(preview.plan)
        plan = preview.plan
        with self._starting:
            run_id, folder = self._new_folder()
            job = Job(run_id=run_id, attempt=1, plan=plan, folder=str(folder))
            _write_json(folder / "settings.json", plan.settings.to_dict())
            _write_json(folder / "job.json", job.to_dict())
            self.store.create_run(
                run_id,
                self._free_name(name or default_name(plan)),
                plan.settings.to_dict(),
                _without_lists(plan.to_dict()),
                parent=parent,
                from_step=from_step,
                estimate=preview.estimate.to_dict(),
                total_steps=int(plan.value("total_steps")),
            )
            self._submit(job)
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
                folder = self.home / "runs" / run_id
                folder.mkdir(parents=True)
            except FileExistsError:  # another process on this home was faster, or the store's file was removed
                continue
            return run_id, folder

    def _free_name(self, name: str) -> str:
        taken = {row.name for row in self.store.runs(include_deleted=True)}
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        return free

    def _submit(self, job: Job) -> None:
        self._answers.forget()
        self._handles = {run_id: handle for run_id, handle in self._handles.items() if handle.wait(0) is None}
        self._handles[job.run_id] = self.executor.submit(job, self.store.append)

    def go_on(self, run_id: str) -> None:
        """Train on from the last checkpoint of a run that was cut off or stopped. Raises RunError where none is."""
        row = self.store.run(run_id)
        if row.state not in ("interrupted", "cancelled"):
            raise RunError(f"{row.name} is {row.state}; only a run that was cut off or stopped can go on.")
        if not any((self.run_folder(run_id) / "checkpoints").glob("step-????????")):
            message = f"{row.name} wrote no checkpoint to go on from. Set save.every before a long run."
            raise RunError(f"{message} Its settings can be used again, or its result as the next base model.")
        job = self._job_of(row)
        _refuse_changed(row, job.plan)
        if not self.store.own(run_id):
            raise RunError(f"{row.name} belongs to another Tuning Fork process on this home folder.")
        self._start_again(row, job)

    def _job_of(self, row: RunRow) -> Job:
        """Its plan as it was kept. Raises RunError."""
        try:
            return Job.from_dict(json.loads((self.run_folder(row.run_id) / "job.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            log.exception("run %s", row.run_id)
            message = f"job.json of {row.name} is gone or not readable, so it cannot be started again"
            raise RunError(f"{message}; its settings can be used for a new run.") from None

    def _start_again(self, row: RunRow, job: Job) -> None:
        """As a further attempt, which begins where the last checkpoint is, or from nothing."""
        self._submit(replace(job, attempt=row.attempt + 1))

    def stop(self, run_id: str) -> None:
        """End a run, keeping what it has learned. One that has ended stays as it is."""
        handle = self._handle(run_id)
        if handle is not None:
            handle.cancel()

    def pause(self, run_id: str) -> None:
        handle = self._handle(run_id)
        if handle is None:
            raise RunError("Only a run that is going can be paused.")
        handle.commands.pause()

    def resume(self, run_id: str) -> None:
        handle = self._handle(run_id)
        if handle is not None:
            handle.commands.resume()

    def _handle(self, run_id: str) -> RunHandle | None:
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

    def place(self, run_id: str) -> int | None:
        """How many runs go first."""
        return self.executor.place(run_id)

    def rename(self, run_id: str, name: Any) -> None:
        self.store.rename(run_id, _checked_text("name", name, NAME_LENGTH))

    def note(self, run_id: str, note: Any) -> None:
        self.store.note(run_id, _checked_text("note", note, NOTE_LENGTH, empty=True))

    def delete(self, run_id: str) -> None:
        """Hide a run, stopping it first; undelete brings it back with every point and file."""
        if self.store.run(run_id).active:
            self.stop(run_id)
        self.store.delete(run_id)

    def undelete(self, run_id: str) -> None:
        self.store.undelete(run_id)

    def result(self, run_id: str, form: str = "trained") -> Path:
        """The folder with what a run has left: `trained`, `best` or `merged`. Raises RunError."""
        return self._results.folder(self.store.run(run_id), form)

    def run_folder(self, run_id: str) -> Path:
        """Where a run's files are."""
        return self.home / "runs" / run_id

    def artifact_name(self, run_id: str) -> str:
        """`adapter` or `model`: what the run's method leaves behind."""
        return method_named(self.store.run(run_id).settings["method"]["name"]).artifact

    # -- asking ----------------------------------------------------------------------------------------------------
    def ask(self, run_id: str, question: Question, tell: Tell | None = None) -> dict[str, Any]:
        """What the base model and the trained one answer: {"base": [...], "trained": [...]}; `tell` hears it grow.

        A run that trains is asked between two of its updates; both models read the run's system prompt first. Raises
        RunError when there is nothing to ask.
        """
        row = self.store.run(run_id)
        refuse_changed_base(row)
        chat = row.chat if question.chat is None else question.chat
        question = replace(question, chat=chat, system_prompt=row.system_prompt, special_tokens=row.special_tokens)
        handle = self._handle(run_id)
        if handle is None or not row.active:
            if method_named(row.settings["method"]["name"]).updates:
                self.result(run_id)  # brought back where the run was cut off
            return self._answers.ask(row, self._job_of(row), question, tell)
        if self.place(run_id):
            raise RunError(f"{row.name} waits in line and has learned nothing yet. Ask it when it has started.")
        return ask_live(handle, row, question, tell)

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
            self.executor.between(_import_quietly, timeout=WARM_SECONDS)
        except RunError:
            log.info("the imports of training were not warmed up in time")

    def close(self) -> None:
        """Stop what runs, keeping it, and close the store. Runs in line stay queued."""
        if self._tables is not None:
            self._tables.close()
        self.executor.close()
        self.store.close()


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


def _refuse_changed(row: RunRow, plan: Plan) -> None:
    """Before a run goes on, while it can still be put right: rows and base model are those of its plan."""
    changed = changed_since(plan, open_data(plan.settings.data, plan.settings.task, plan.settings.seed))
    if changed:
        raise RunError(
            f"{row.name} cannot go on, for what it was planned with has changed: {'; '.join(changed)}. Put the old"
            " files back, or start a new run."
        )


def _run_of(plan: Plan) -> str:
    """The run whose result this one starts from."""
    return plan.model.spec.removeprefix("run:").partition("/")[0]


def _kind_of(settings: dict[str, Any], device: str) -> tuple[Any, ...]:
    keys = ("model", "task", "precision", "gradient_checkpointing")
    return (settings["method"]["name"], device, *(settings[key] for key in keys))


def _without_lists(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan as a row shows it: without the length of every single row of data, which job.json has."""
    return {**plan, "data": {key: value for key, value in plan["data"].items() if not _is_long(value)}}


def _is_long(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 50


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _checked_text(field: str, value: Any, limit: int, empty: bool = False) -> str:
    text = value.strip() if isinstance(value, str) and whole_characters(value) == value else None
    if text is None or len(text) > limit or (not text and not empty):
        asked = f"{'0' if empty else '1'} to {limit} whole characters"
        raise SettingsError([Problem(field, value, asked, f"must have {asked}.")])
    return text


def _import_quietly() -> None:
    with imports_in_line():  # a tokenizer may be opened meanwhile, to count tokens
        for module in WARM_MODULES:
            try:
                importlib.import_module(module)
            except Exception:  # the first run will say what is wrong, to the person who starts it
                log.warning("could not warm up %s", module, exc_info=True)
