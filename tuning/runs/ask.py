"""Questions to a run: to one that trains, and to one that has ended.

A run that trains answers between two of its updates, one that is paused between the micro-batches where it waits, both
with the weights they have then; one that has ended answers from its files, which stay loaded for the next question
until a run starts. No thread waits for an answer: a question has a future, and who does not want the answer any more
drops it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tuning.core.errors import RunError, ShouldContinue, Stopped, TuningError
from tuning.methods import method_named
from tuning.runs.executors.base import Executor
from tuning.runs.run_row import RunRow
from tuning.settings.schema import Settings
from tuning.settings.versions import upgrade
from tuning.text.question import Question
from tuning.training.checkpoint_files import RecoverySource
from tuning.training.job import Commands, Job

if TYPE_CHECKING:
    from tuning.training.compare import BaseAndTuned, PlainAndPrompted

log = logging.getLogger(__name__)

ASK_SECONDS = 120.0
"""Seconds that a question waits for its turn."""
HELD_SECONDS = 20.0
"""Seconds that one question may hold up a training."""
MOST_OF_RUN, MOST_OF_CLIENT = 64, 4
"""How many questions may wait for one run, and of one client for all runs."""

OnPiece = Callable[[dict[str, Any]], None]
"""Called with {"side", "index", "text"} for each piece of an answer, and {"again": true} where it begins anew."""
AnswerWork = Callable[[ShouldContinue, Callable[[str, int, str], None]], dict[str, Any]]
"""Answers a question: called with `should_continue` and with what gets the side, the index of the prompt and text."""


class TooManyQuestions(RunError):
    """More questions wait than are allowed."""


class PendingAnswer:
    """A question that waits, is being answered, or is answered: then `done` has the answers, or what went wrong."""

    def __init__(self, name: str, on_piece: OnPiece, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is the run's name, for messages."""
        self.done: Future[dict[str, Any]] = Future()
        self.begun = False
        """Whether answering has begun."""
        self._name, self._on_piece, self._clock = name, on_piece, clock

    def drop(self) -> None:
        """Give up the answer: it does not begin, or ends after the present token."""
        self.done.cancel()

    def refuse(self, error: TuningError) -> None:
        """End with this error instead of an answer."""
        with suppress(InvalidStateError):  # dropped
            self.done.set_exception(error)

    def too_late(self) -> None:
        """End with the error that the time for waiting is over."""
        message = f"No answer within {ASK_SECONDS:.0f} seconds: {self._name} is busy, or others asked before."
        self.refuse(RunError(f"{message} Ask again later."))

    def answer(self, work: AnswerWork, should_continue: ShouldContinue, run_waits: Callable[[], bool]) -> None:
        """Do the work now. Raises Stopped where `should_continue` has ended it; then it may be begun anew.

        It ends with an error where a run has waited for it longer than HELD_SECONDS, as `run_waits` answers.
        """
        if self.done.done():
            return
        if self.begun:
            self._on_piece({"again": True})
        self.begun, since, too_long = True, self._clock(), False

        def should_answer() -> bool:
            nonlocal since, too_long
            if not run_waits():
                since = self._clock()
            too_long = self._clock() - since > HELD_SECONDS
            return should_continue() and not too_long and not self.done.cancelled()

        try:
            answers = work(
                should_answer, lambda side, index, text: self._on_piece({"side": side, "index": index, "text": text})
            )
        except Stopped:
            if too_long:
                message = f"A question may hold up training for {HELD_SECONDS:.0f} seconds, and this one takes longer."
                self.refuse(
                    RunError(f"{message} Ask fewer prompts or tokens, pause the training, or wait for its end.")
                )
            elif not self.done.cancelled():
                raise
        except TuningError as error:
            self.refuse(error)
        except Exception as error:  # whatever a library raises is a sentence for the person who asked
            log.exception("a question failed")
            self.refuse(RunError(f"{self._name} could not answer: {type(error).__name__}: {error}"))
        else:
            with suppress(InvalidStateError):
                self.done.set_result(answers)


class WaitingQuestions:
    """Counts the questions that wait, so that neither one run nor one client has all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs, self._clients = Counter[str](), Counter[str]()

    def add(self, run_id: str, client: str | None, name: str) -> Callable[[], None]:
        """Count one more; returns what to call when it is answered. Raises TooManyQuestions."""
        with self._lock:
            if self._runs[run_id] >= MOST_OF_RUN:
                raise TooManyQuestions(f"{MOST_OF_RUN} questions wait for {name} already. Ask again in a minute.")
            if client is not None and self._clients[client] >= MOST_OF_CLIENT:
                message = f"{MOST_OF_CLIENT} questions of yours wait already. Ask again when one is answered."
                raise TooManyQuestions(message)
            self._runs[run_id] += 1
            self._clients[client or ""] += 1

        def remove() -> None:
            with self._lock:
                self._runs[run_id] -= 1
                self._clients[client or ""] -= 1

        return remove


class SavedAnswers:
    """Answers of runs that have ended, from their files; the last model asked stays loaded."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._loaded: tuple[tuple[Any, ...], BaseAndTuned | PlainAndPrompted] | None = None

    def forget(self) -> None:
        """Release the loaded model, whose memory a run will need."""
        with self._lock:
            self._loaded = None

    def put(
        self,
        pending: PendingAnswer,
        question: Question,
        saved_run: Callable[[], tuple[RunRow, Job, RecoverySource | None]],
    ) -> None:
        """Queue a question for the files of a run, which `saved_run` returns when its turn comes, with what its weights
        were recovered from; where there is such a source the answers name it."""

        def work(should_continue: ShouldContinue, run_waits: bool) -> None:
            def answer(should_answer: ShouldContinue, on_text: Callable[[str, int, str], None]) -> dict[str, Any]:
                row, job, source = saved_run()
                answers = self._models(row, job, should_answer).ask(question, on_text, should_answer)
                return answers if source is None else answers | {"recovered_from": source}

            pending.answer(answer, should_continue, lambda: run_waits)

        task = self._executor.submit_task(work)
        pending.done.add_done_callback(lambda _: task.done.cancel())
        task.done.add_done_callback(lambda done: _pass_on_refusal(done, pending))

    def _models(self, row: RunRow, job: Job, should_continue: ShouldContinue) -> "BaseAndTuned | PlainAndPrompted":
        """The models of a run, loaded where they are not those of the last question. Raises RunError, Stopped."""
        from tuning.training.compare import BaseAndTuned, PlainAndPrompted

        key = (job.folder, row.attempt, row.ended)
        with self._lock:
            if self._loaded is not None and self._loaded[0] == key:
                return self._loaded[1]
            self._loaded = None  # the old one is released before the new one is loaded
        settings = job.plan.settings
        models: BaseAndTuned | PlainAndPrompted
        if method_named(settings.method.name).updates:
            models = BaseAndTuned(job.folder, job.plan.model.path, settings, should_continue)
        else:
            models = PlainAndPrompted(job.plan, should_continue)
        with self._lock:
            self._loaded = (key, models)
        return models


def _pass_on_refusal(done: Future[Any], pending: PendingAnswer) -> None:
    """End a pending answer with the error with which the executor has refused its task."""
    if not done.cancelled() and isinstance(error := done.exception(), TuningError):
        pending.refuse(error)


def put_live(
    pending: PendingAnswer, commands: Commands, row: RunRow, question: Question, if_ended: Callable[[], None]
) -> None:
    """Let a run answer between two updates, or while it is paused; where it ends before that, call `if_ended`."""

    def task(model: Any, tokenizer: Any, class_names: Any) -> None:
        def answer(should_answer: ShouldContinue, on_text: Callable[[str, int, str], None]) -> dict[str, Any]:
            from tuning.training.compare import compare_in_training

            path, settings = row.plan["model"]["path"], _settings(row)
            return compare_in_training(model, tokenizer, path, settings, question, class_names, on_text, should_answer)

        try:
            pending.answer(answer, lambda: not commands.stopping, lambda: not commands.paused)
        except Stopped:  # its saved model answers in a moment
            if not commands.ask(task, if_ended):
                if_ended()

    if not commands.ask(task, if_ended):
        if_ended()


def _settings(row: RunRow) -> Settings:
    """The run's settings, those of an older version with their old meaning written out."""
    return Settings.from_dict(upgrade(row.settings)[0])
