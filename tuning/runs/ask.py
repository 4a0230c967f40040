"""Asking a run something: the two ways to have a question answered, and a question on its way.

In: a `Question` and the run it is for. Out: pieces of the answers as they are written, then all of them. A run that
trains answers between two of its updates, with the weights it has then; one that has ended, from its files, which stay
loaded for the next question until a run starts. Nobody waits in a thread: a question has a future, and whoever does not
want the answer any more drops it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from tuning.core.errors import GoOn, RunError, Stopped, TuningError
from tuning.methods import method_named
from tuning.runs.executors.base import Executor
from tuning.runs.run_row import RunRow
from tuning.settings.schema import Settings
from tuning.settings.versions import today
from tuning.text.question import Question
from tuning.training.job import Commands, Job

log = logging.getLogger(__name__)

ASK_SECONDS = 120.0
"""How long a question waits for its turn."""
HELD_SECONDS = 20.0
"""How long one question may hold up a training."""
MOST_OF_RUN, MOST_OF_CLIENT = 64, 4
"""Questions that wait for a run, and of one client for all runs."""

Hear = Callable[[dict[str, Any]], None]
"""Told {"side", "index", "text"} for each piece of an answer, and {"again": true} where answering begins anew."""


class TooManyQuestions(RunError):
    """More questions wait than there may."""


class Asked:
    """A question on its way: it waits, is being answered, is done. `done` holds both answers, or what went wrong."""

    def __init__(self, name: str, hear: Hear, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is what a person calls the run."""
        self.done: Future[dict[str, Any]] = Future()
        self.begun = False
        """Whether answering has begun."""
        self._name, self._hear, self._clock = name, hear, clock

    def drop(self) -> None:
        """Nobody wants the answer any more: it does not begin, or ends after the token in hand."""
        self.done.cancel()

    def refuse(self, error: TuningError) -> None:
        """Say that there will be no answer."""
        with suppress(InvalidStateError):  # dropped
            self.done.set_exception(error)

    def too_late(self) -> None:
        """The time for waiting is over."""
        message = f"No answer within {ASK_SECONDS:.0f} seconds: {self._name} is busy, or others asked before."
        self.refuse(RunError(f"{message} Ask again later."))

    def answer(
        self, work: Callable[[GoOn, Any], dict[str, Any]], should_continue: GoOn, held: Callable[[], bool]
    ) -> None:
        """Do the work now. Raises Stopped where `should_continue` has ended it, and then it may be begun anew.

        Longer than HELD_SECONDS it does not go on while `held` says that a training waits for it.
        """
        if self.done.done():
            return
        if self.begun:
            self._hear({"again": True})
        self.begun, since, too_long = True, self._clock(), False

        def wanted() -> bool:
            nonlocal since, too_long
            if not held():
                since = self._clock()
            too_long = self._clock() - since > HELD_SECONDS
            return should_continue() and not too_long and not self.done.cancelled()

        try:
            found = work(wanted, lambda side, index, text: self._hear({"side": side, "index": index, "text": text}))
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
        except Exception as error:  # whatever a library raises is told as a sentence, to the one who asked
            log.exception("a question failed")
            self.refuse(RunError(f"{self._name} could not answer: {type(error).__name__}: {error}"))
        else:
            with suppress(InvalidStateError):
                self.done.set_result(found)


class Waiting:
    """Counts the questions that wait, so that one run or one client does not have all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs, self._clients = Counter[str](), Counter[str]()

    def add(self, run_id: str, client: str | None, name: str) -> Callable[[], None]:
        """One more; what to call when it is answered. Raises TooManyQuestions."""
        with self._lock:
            if self._runs[run_id] >= MOST_OF_RUN:
                raise TooManyQuestions(f"{MOST_OF_RUN} questions wait for {name} already. Ask again in a minute.")
            if client is not None and self._clients[client] >= MOST_OF_CLIENT:
                message = f"{MOST_OF_CLIENT} questions of yours wait already. Ask again when one is answered."
                raise TooManyQuestions(message)
            self._runs[run_id] += 1
            self._clients[client or ""] += 1

        def over() -> None:
            with self._lock:
                self._runs[run_id] -= 1
                self._clients[client or ""] -= 1

        return over


class SavedAnswers:
    """Questions to what runs have saved; the last model asked stays loaded."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def forget(self) -> None:
        """Let go of the loaded model, whose memory a run will want."""
        with self._lock:
            self._loaded = None

    def put(self, asked: Asked, question: Question, found: Callable[[], tuple[RunRow, Job]]) -> None:
        """Put a question in line for the files of a run, which `found` makes sure of when its turn comes."""

        def work(should_continue: GoOn, held: bool) -> None:
            def both(wanted: GoOn, tell: Any) -> dict[str, Any]:
                row, job = found()
                return self._sides(row, job, wanted).ask(question, tell, wanted)

            asked.answer(both, should_continue, lambda: held)

        small = self._executor.submit_task(work)
        asked.done.add_done_callback(lambda _: small.done.cancel())
        small.done.add_done_callback(lambda done: _pass_on(done, asked))

    def _sides(self, row: RunRow, job: Job, should_continue: GoOn) -> Any:
        from tuning.training.compare import BaseAndTuned, PlainAndPrompted

        key = (job.folder, row.attempt, row.ended)
        with self._lock:
            if self._loaded is not None and self._loaded[0] == key:
                return self._loaded[1]
            self._loaded = None  # the old one goes before the new one comes
        settings = job.plan.settings
        trained = method_named(settings.method.name).updates
        path = job.plan.model.path
        sides = (
            BaseAndTuned(job.folder, path, settings, should_continue)
            if trained
            else PlainAndPrompted(job.plan, should_continue)
        )
        with self._lock:
            self._loaded = (key, sides)
        return sides


def _pass_on(done: Future[Any], asked: Asked) -> None:
    """Where the executor refuses a question, the one who asked is told."""
    if not done.cancelled() and isinstance(error := done.exception(), TuningError):
        asked.refuse(error)


def put_live(asked: Asked, commands: Commands, row: RunRow, question: Question, instead: Callable[[], None]) -> None:
    """Let a run that trains answer between two updates; where it ends first, do what is to be done `instead`."""

    def put(model: Any, tokenizer: Any, labels: Any) -> None:
        def both(wanted: GoOn, tell: Any) -> dict[str, Any]:
            from tuning.training.compare import compare_in_training

            path = row.plan["model"]["path"]
            return compare_in_training(model, tokenizer, path, _settings(row), question, labels, tell, wanted)

        try:
            asked.answer(both, lambda: not commands.stopping, lambda: not commands.paused)
        except Stopped:  # its saved model answers in a moment
            if not commands.ask(put, instead):
                instead()

    if not commands.ask(put, instead):
        instead()


def _settings(row: RunRow) -> Settings:
    """The run's settings, those of an older version with their old meaning written out."""
    return Settings.from_dict(today(row.settings)[0])
