"""What a run's evaluations find: measured, told as events, kept as predictions, and which of them was the best.

Comes in: the held-out rows, as text and as tokens, and a model now and then.  Goes out: `eval` events, a file of
predictions for each, the weights of the best so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuning.core.errors import GoOn, Stopped
from tuning.settings.schema import WRITTEN_METRICS
from tuning.text import Encoded, Row, TextTokenizer
from tuning.training.base_answers import recipe_metrics
from tuning.training.build import Built
from tuning.training.checkpoint import write_weights
from tuning.training.checkpoint_files import BEST_FILE, best_weights
from tuning.training.disk_full import written_or_told
from tuning.training.evaluate import LOWER_IS_BETTER, Evaluation, evaluate
from tuning.training.exact_match import Written, write_answers
from tuning.training.job import Job
from tuning.training.predictions import predictions, write_predictions
from tuning.training.probes import PeakProbe


class Scores:
    """The evaluations of one attempt."""

    def __init__(
        self,
        job: Job,
        emit: Callable[..., Any],
        tokenizer: TextTokenizer,
        rows: Sequence[Row],
        encoded: Sequence[Encoded],
        labels: Sequence[str] | None,
        questions: Sequence[Row],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`questions` are evaluation rows with their true answers, where a recipe has rewritten them."""
        self._job, self._emit, self._tokenizer, self._clock = job, emit, tokenizer, clock
        self._settings, self._folder = job.plan.settings, Path(job.folder)
        self._rows, self.encoded, self._labels, self._questions = rows, encoded, labels, questions
        self.best: tuple[int, float] | None = None
        """The step and the value of `best_by`."""
        self.without_best = 0
        """Evaluations since the best one."""
        self.all: list[dict[str, Any]] = []
        """Step, loss and metrics of each."""

    def evaluate(
        self,
        built: Built,
        step: int,
        batch_size: int,
        should_continue: GoOn,
        probe: PeakProbe | None = None,
    ) -> None:
        """Measure on all held-out rows and tell; nothing where there are none.

        `probe` measures the memory that this takes. Raises Stopped where `should_continue` answers False.
        """
        if not self.encoded:
            return
        began = self._clock()
        found = evaluate(built, self.encoded, batch_size=batch_size, should_continue=should_continue, probe=probe)
        if found is None:
            raise Stopped
        written = self._written(built, step, should_continue)
        told = len(self.all)
        try:
            self._keep(built, step, found, written, began, should_continue)
        except Exception:
            del self.all[told:]  # it is not among those that a checkpoint keeps, so it is made again
            raise

    def _keep(
        self, built: Built, step: int, found: Evaluation, written: Written | None, began: float, should_continue: GoOn
    ) -> None:
        """Tell an evaluation, write its predictions, remember the best."""
        measured = found.metrics if written is None else found.metrics | {"exact_match": written.exact_match}
        metrics = {name: measured[name] for name in self._settings.metrics if name in measured}
        if self._questions and step in (0, self._job.plan.value("total_steps")):
            self._emit("phase", name="answering", detail="what the recipe measures", done=None, total=None)
            metrics |= recipe_metrics(
                self._job.plan, built.model, list(self._questions), self._tokenizer, should_continue
            )
        self.tell(step, found.loss, metrics, self._clock() - began)
        texts = {} if written is None else written.texts
        table = predictions(found, metrics, self._rows, self._tokenizer, self._labels, texts, self.encoded)
        with written_or_told(self._emit, step, "The predictions", self._folder / "predictions"):
            write_predictions(self._folder, step, table)
        self._remember(built, step, found.loss, metrics)

    def due(self, step: int) -> bool:
        """Whether there is something to measure at this step, and it was not yet."""
        return bool(self.encoded) and not (self.all and self.all[-1]["step"] == step)

    def tell(
        self, step: int, loss: float, metrics: dict[str, float], seconds: float, peak_bytes: int | None = None
    ) -> None:
        """One `eval` event; kept for the model card. `peak_bytes` is what it took, where that was measured."""
        self._emit("eval", step=step, loss=loss, metrics=metrics, seconds=seconds, peak_bytes=peak_bytes)
        self.all.append({"step": step, "loss": loss, "metrics": metrics})

    def so_far(self) -> dict[str, Any]:
        """What a checkpoint keeps of the evaluations, so that a run that goes on knows its best."""
        return {"best": self.best, "without_best": self.without_best, "evaluations": self.all}

    def go_on_from(self, so_far: dict[str, Any]) -> None:
        """Take up what a checkpoint has kept."""
        best = so_far["best"]
        self.best = None if best is None else (int(best[0]), float(best[1]))
        self.without_best, self.all = so_far["without_best"], list(so_far["evaluations"])

    def kept_best(self) -> tuple[int, float] | None:
        """Step and value of the best weights that are stored; None where none are.

        Behind a checkpoint that a killed run went on from they may be of a later step than `best`.
        """
        return best_weights(self._folder)

    def _remember(self, built: Built, step: int, loss: float, metrics: dict[str, float]) -> None:
        """Keep the weights of the best evaluation so far. One whose value is no number is neither better nor worse."""
        by = self._settings.save.best_by
        measured = {"eval_loss": loss} | metrics
        value = measured.get(by, math.nan)
        endless = [name for name, one in measured.items() if not math.isfinite(one)]
        if endless or not math.isfinite(value):
            names = ", ".join(dict.fromkeys((*endless, *(() if math.isfinite(value) else (by,)))))
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
        with written_or_told(self._emit, step, "The best weights", self._folder):
            if built.trainable:
                write_weights(built, self._folder / BEST_FILE, {"step": str(step), "value": repr(value)})
            self.best = (step, value)  # weights that are not there are not the best: the next better ones are kept

    def _is_best(self, value: float) -> bool:
        if self.best is None:
            return True
        lower = self._settings.save.best_by in LOWER_IS_BETTER
        return value < self.best[1] if lower else value > self.best[1]

    def _written(self, built: Built, step: int, should_continue: GoOn) -> Written | None:
        """Written answers, where a metric needs them; what the time left out is told."""
        asked = self._settings.eval
        if not WRITTEN_METRICS & set(self._settings.metrics):
            return None
        written = write_answers(
            built,
            self._tokenizer,
            self._rows,
            most=asked.generate_rows,
            max_new_tokens=asked.max_new_tokens,
            seconds=asked.max_seconds,
            system_prompt=self._settings.data.system_prompt,
            chat=self._job.plan.chat,
            special_tokens=self._settings.data.special_tokens,
            should_continue=should_continue,
        )
        if len(written.texts) < written.asked and should_continue():
            message = (
                f"Exact match at step {step} is over {len(written.texts)} of {written.asked} rows:"
                f" eval.max_seconds ({asked.max_seconds:g}) were up. Fewer generate_rows or max_new_tokens fit."
            )
            self._emit("warning", step=step, message=message)
        return written
