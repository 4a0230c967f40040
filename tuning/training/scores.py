"""The evaluations of a run: measured, emitted as events, written as predictions, and which of them is the best.

Each emits an `eval` event and writes a file of predictions; the weights of the best so far are stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuning.core.errors import ShouldContinue, Stopped
from tuning.settings.schema import WRITTEN_METRICS
from tuning.text import EncodedRow, Row, TextTokenizer
from tuning.training.base_answers import recipe_metrics
from tuning.training.build import Built
from tuning.training.checkpoint import write_weights
from tuning.training.checkpoint_files import BEST_FILE, best_weights
from tuning.training.disk_full import warn_if_unwritten
from tuning.training.evaluate import LOWER_IS_BETTER, Evaluation, evaluate
from tuning.training.exact_match import WrittenAnswers, write_answers
from tuning.training.job import Job
from tuning.training.predictions import predictions_table, write_predictions
from tuning.training.probes import PeakProbe


class Scores:
    """The evaluations of one attempt."""

    def __init__(
        self,
        job: Job,
        emit: Callable[..., Any],
        tokenizer: TextTokenizer,
        rows: Sequence[Row],
        encoded: Sequence[EncodedRow],
        class_names: Sequence[str] | None,
        questions: Sequence[Row],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`questions` are the evaluation rows with their true answers, where a recipe has rewritten `rows`."""
        self._job, self._emit, self._tokenizer, self._clock = job, emit, tokenizer, clock
        self._settings, self._folder = job.plan.settings, Path(job.folder)
        self._rows, self.encoded, self._class_names, self._questions = rows, encoded, class_names, questions
        self.best: tuple[int, float] | None = None
        """The step of the best evaluation, and its value of `save.best_by`."""
        self.without_best = 0
        """How many evaluations came since the best one."""
        self.all: list[dict[str, Any]] = []
        """Step, loss and metrics of each evaluation."""

    def evaluate(
        self,
        built: Built,
        step: int,
        batch_size: int,
        should_continue: ShouldContinue,
        probe: PeakProbe | None = None,
    ) -> None:
        """Evaluate on all held-out rows, and emit the result; does nothing where there are none.

        `probe` measures the memory that this takes. Raises Stopped where `should_continue` answers False.
        """
        if not self.encoded:
            return
        start = self._clock()
        evaluation = evaluate(built, self.encoded, batch_size=batch_size, should_continue=should_continue, probe=probe)
        if evaluation is None:
            raise Stopped
        written = self._written_answers(built, step, should_continue)
        before = len(self.all)
        try:
            self._record(built, step, evaluation, written, start, should_continue)
        except Exception:
            del self.all[before:]  # so that no checkpoint has it, and a resumed run evaluates again
            raise

    def _record(
        self,
        built: Built,
        step: int,
        evaluation: Evaluation,
        written: WrittenAnswers | None,
        start: float,
        should_continue: ShouldContinue,
    ) -> None:
        """Emit an evaluation, write its predictions, and store the weights where it is the best."""
        measured = evaluation.metrics if written is None else evaluation.metrics | {"exact_match": written.exact_match}
        metrics = {name: measured[name] for name in self._settings.metrics if name in measured}
        if self._questions and step in (0, self._job.plan.value("total_steps")):
            self._emit("phase", name="answering", detail="what the recipe measures", done=None, total=None)
            questions = list(self._questions)
            metrics |= recipe_metrics(self._job.plan, built.model, questions, self._tokenizer, should_continue)
        self.emit(step, evaluation.loss, metrics, self._clock() - start)
        texts = {} if written is None else written.texts
        table = predictions_table(
            evaluation, metrics, self._rows, self._tokenizer, self._class_names, texts, self.encoded
        )
        with warn_if_unwritten(self._emit, step, "The predictions", self._folder / "predictions"):
            write_predictions(self._folder, step, table)
        self._store_best(built, step, evaluation.loss, metrics)

    def due(self, step: int) -> bool:
        """Whether there are rows to evaluate at this step, and that was not done yet."""
        return bool(self.encoded) and not (self.all and self.all[-1]["step"] == step)

    def emit(
        self, step: int, loss: float, metrics: dict[str, float], seconds: float, peak_bytes: int | None = None
    ) -> None:
        """Emit an `eval` event and keep it for the model card. `peak_bytes` is the memory peak, where measured."""
        self._emit("eval", step=step, loss=loss, metrics=metrics, seconds=seconds, peak_bytes=peak_bytes)
        self.all.append({"step": step, "loss": loss, "metrics": metrics})

    def history(self) -> dict[str, Any]:
        """The evaluations as a checkpoint stores them, so that a resumed run knows its best."""
        return {"best": self.best, "without_best": self.without_best, "evaluations": self.all}

    def restore(self, history: dict[str, Any]) -> None:
        """Restore the evaluations that a checkpoint has stored."""
        best = history["best"]
        self.best = None if best is None else (int(best[0]), float(best[1]))
        self.without_best, self.all = history["without_best"], list(history["evaluations"])

    def stored_best(self) -> tuple[int, float] | None:
        """Step and value of the best weights that are stored; None where none are.

        In a run that was killed and resumed they may be of a later step than `best`.
        """
        return best_weights(self._folder)

    def _store_best(self, built: Built, step: int, loss: float, metrics: dict[str, float]) -> None:
        """Store the weights where this evaluation is the best. One that is not finite is neither better nor worse."""
        by = self._settings.save.best_by
        measured = {"eval_loss": loss} | metrics
        value = measured.get(by, math.nan)
        not_finite = [name for name, number in measured.items() if not math.isfinite(number)]
        if not_finite or not math.isfinite(value):
            names = ", ".join(dict.fromkeys((*not_finite, *(() if math.isfinite(value) else (by,)))))
            message = f"Not a finite number at step {step}: {names}."
            if not (math.isfinite(value) and math.isfinite(loss)):
                message += " This evaluation is not the best, and counts neither for nor against eval.patience."
            self._emit("warning", step=step, message=message)
        if not (math.isfinite(value) and math.isfinite(loss)):
            return
        if not self._is_best(value):
            self.without_best += 1
            return
        self.without_best = 0
        with warn_if_unwritten(self._emit, step, "The best weights", self._folder):
            if built.trainable:
                write_weights(built, self._folder / BEST_FILE, {"step": str(step), "value": repr(value)})
            self.best = (
                step,
                value,
            )  # not where the weights could not be written: the next better ones are stored then

    def _is_best(self, value: float) -> bool:
        if self.best is None:
            return True
        lower = self._settings.save.best_by in LOWER_IS_BETTER
        return value < self.best[1] if lower else value > self.best[1]

    def _written_answers(self, built: Built, step: int, should_continue: ShouldContinue) -> WrittenAnswers | None:
        """Generated answers, where a metric needs them; rows that were skipped for lack of time are reported."""
        settings = self._settings.eval
        if not WRITTEN_METRICS & set(self._settings.metrics):
            return None
        written = write_answers(
            built,
            self._tokenizer,
            self._rows,
            most=settings.generate_rows,
            max_new_tokens=settings.max_new_tokens,
            seconds=settings.max_seconds,
            system_prompt=self._settings.data.system_prompt,
            chat=self._job.plan.chat,
            special_tokens=self._settings.data.special_tokens,
            should_continue=should_continue,
        )
        if len(written.texts) < written.row_count and should_continue():
            message = (
                f"Exact match at step {step} is over {len(written.texts)} of {written.row_count} rows:"
                f" eval.max_seconds ({settings.max_seconds:g}) were up. Fewer generate_rows or max_new_tokens fit."
            )
            self._emit("warning", step=step, message=message)
        return written
