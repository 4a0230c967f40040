"""Asking a run something: the two ways to have a question answered, and answers as they are being written.

In: a `Question` and the run it is for. Out: pieces of the answers, then all of them. A run that trains answers between
two of its updates, with the weights it has then; one that has ended, from its files, which stay loaded for the next
question until a run starts.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from tuning.errors import RunError, TuningError
from tuning.executors.base import Executor, RunHandle
from tuning.job import Job
from tuning.methods import method_named
from tuning.question import Question
from tuning.rows import RunRow
from tuning.settings import Settings
from tuning.settings_versions import today

log = logging.getLogger(__name__)

ASK_SECONDS = 120.0
LOOK_SECONDS = 0.1

Tell = Callable[[str, int, str], None]


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

    def ask(self, row: RunRow, job: Job, question: Question, tell: Tell | None) -> dict[str, Any]:
        """Both answers, those of the weights in the job's folder. Raises RunError when that takes too long."""

        def answer() -> dict[str, Any]:
            return self._sides(row, job).ask(question, tell)

        return self._executor.between(answer, timeout=ASK_SECONDS)

    def _sides(self, row: RunRow, job: Job) -> Any:
        from tuning.training.sides import PromptedSides, SavedSides

        key = (job.folder, row.attempt, row.ended)
        with self._lock:
            if self._loaded is not None and self._loaded[0] == key:
                return self._loaded[1]
            self._loaded = None  # the old one goes before the new one comes
        trained = method_named(job.plan.settings.method.name).updates
        sides = SavedSides(job.folder, job.plan.model.path, job.plan.settings) if trained else PromptedSides(job.plan)
        with self._lock:
            self._loaded = (key, sides)
        return sides


def ask_live(handle: RunHandle, row: RunRow, question: Question, tell: Tell | None) -> dict[str, Any]:
    """Let a run that trains answer between two updates. Raises RunError when it ends first, or takes long."""
    answer: Future[dict[str, Any]] = Future()

    def put(model: Any, tokenizer: Any, labels: Any) -> None:
        from tuning.training.sides import live_sides

        path = row.plan["model"]["path"]
        try:
            answer.set_result(live_sides(model, tokenizer, path, _settings(row), question, labels, tell))
        except TuningError as error:
            answer.set_exception(error)
        except Exception as error:
            log.exception("a question to %s failed", row.run_id)
            answer.set_exception(RunError(f"{row.name} could not answer: {type(error).__name__}: {error}"))

    handle.commands.ask(put)
    for _ in range(round(ASK_SECONDS / LOOK_SECONDS)):
        over = handle.wait(LOOK_SECONDS) is not None
        if answer.done():
            return answer.result()
        if over:
            raise RunError(f"{row.name} ended before it could answer. Ask again: its saved model answers now.")
    message = f"No answer within {ASK_SECONDS:.0f} seconds: {row.name} is busy with a long update. Ask again later."
    raise RunError(message)


def _settings(row: RunRow) -> Settings:
    """The run's settings, those of an older version with their old meaning written out."""
    return Settings.from_dict(today(row.settings)[0])


def streamed(ask: Callable[[Tell], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pieces {"side", "index", "text"} while `ask` runs in a thread of its own, then {"answers": ...}. Raises
    TuningError, whatever went wrong."""
    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            found = ask(lambda side, index, text: pieces.put({"side": side, "index": index, "text": text}))
            pieces.put({"answers": found})
        except TuningError as error:
            pieces.put(error)
        except BaseException as error:  # whatever a library raises is told as a sentence, to the one who asked
            log.exception("a question failed")
            pieces.put(RunError(f"The model could not answer: {type(error).__name__}: {error}"))

    threading.Thread(target=work, name="asking", daemon=True).start()
    while True:
        piece = pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        yield piece
        if "answers" in piece:
            return
