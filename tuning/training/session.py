"""One attempt at a run: load, train, evaluate, write checkpoints, save, with an event for each.

The loop is a generator; this module does what is due between two of its updates.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tuning.core.errors import RunError, Stopped
from tuning.data import DataSet, encode_cached, encode_pairs, encode_set, open_data
from tuning.methods import method_named
from tuning.plan.plan import changed_since
from tuning.text import EncodedRow, Row, TextTokenizer
from tuning.text.question import Question
from tuning.training.base_answers import prepared_rows, prompted_rows
from tuning.training.build import (
    Built,
    build,
    own_random_state,
    own_threads,
    pick_device,
    stop_between_tensors,
)
from tuning.training.checkpoint import (
    Interval,
    newest_checkpoint,
    read_weights,
    state_bytes,
    write_checkpoint,
)
from tuning.training.checkpoint_files import BEST_FILE, CHECKPOINTS
from tuning.training.disk_full import warn_if_unwritten
from tuning.training.features import FeatureCache
from tuning.training.generate import TextGenerator
from tuning.training.job import Commands, Job
from tuning.training.loop import LoopConfig, NotFiniteError, Progress, Update, train
from tuning.training.model_card import library_versions, model_card
from tuning.training.probes import PeakProbe
from tuning.training.save import save_artifact, train_on
from tuning.training.scores import Scores


class Session:
    """One attempt at a run; used once."""

    def __init__(
        self, job: Job, emit: Callable[..., Any], commands: Commands, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._job, self._emit, self._commands, self._clock = job, emit, commands, clock
        self._settings = job.plan.settings
        self._folder, self._base = Path(job.folder), Path(job.plan.model.path)
        self._method = method_named(self._settings.method.name)
        self._tokenizer = TextTokenizer(self._base)
        self._class_names: tuple[str, ...] | None = None
        self._progress = Progress()
        self._interval = Interval(self._settings.save.every_seconds, 0.0)
        self._start_time = self._paused_seconds = self._seconds_before = 0.0
        self._next_question_time = 0.0
        self._sampled = -1
        """The last step at which the sample prompts were answered."""
        self._checkpoint_position: tuple[int, ...] | None = None
        """The `_position` of the newest checkpoint."""
        self.saved_after_failure: dict[str, Any] = {}
        """What a failed attempt has saved, as members of its end event."""

    def run(self) -> str:
        """The whole attempt; returns "finished" or "cancelled".

        Raises what went wrong, and Stopped where it was stopped before anything was learned.
        """
        settings = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        parameters = self._job.plan.value("total_parameters")
        with own_threads(parameters), own_random_state(settings.seed, pick_device(settings.device)):
            data = self._open_data()
            rows, scores = self._rows(data)
            self._phase("loading", "model")
            rate = self._job.plan.value("learning_rate")
            with stop_between_tensors(self._not_stopped):
                built = build(settings, str(self._base), self._class_names, rate, self._tokenizer.pad_id or 0)
                train_on(built.model, self._job.plan, self._class_names)
                torch.random.manual_seed(settings.seed)
                self._resume(built, scores)
            config = LoopConfig.of(self._job.plan)
            self._emit(
                "started",
                total_steps=config.total_steps,
                step=self._progress.step,
                device=str(built.device),
                trainable_parameters=sum(weight.numel() for weight in built.trainable),
                train_rows=len(rows),
                eval_rows=len(scores.encoded),
                notices=[notice.to_dict() for notice in self._job.plan.notices],
            )
            self._start_time = self._clock()
            self._interval = Interval(settings.save.every_seconds, self._seconds())
            batch = self._job.plan.evaluation_batch_size()
            if not self._method.updates:
                return self._run_without_updates(built, data, config, batch)
            if self._method.caches_features(settings.method):
                rows = list(rows)  # the cache finds a row's features by its identity
                built = self._cache_features(built, rows, scores.encoded, batch)
            try:
                return self._train_to_end(built, rows, scores, config, batch)
            except Exception as error:
                self._save_after_failure(built, scores, config, error)
                raise

    def _run_without_updates(self, built: Built, data: DataSet, config: LoopConfig, eval_batch: int) -> str:
        """A method without updates: one evaluation, emitted for the first step and the last, for it does not change."""

        def on_progress(done: int, total: int) -> None:
            self._emit("phase", name="answering", detail=None, done=done, total=total)
            self._should_continue(built)

        state, probe = "finished", PeakProbe()
        try:
            pairs = prompted_rows(
                self._job.plan,
                data,
                self._method,
                built.model,
                self._tokenizer,
                on_progress=on_progress,
                should_continue=self._not_stopped,
            )
            scores = self._scores(pairs, ())
            scores.evaluate(built, 0, eval_batch, lambda: self._should_continue(built), probe)
            evaluation = scores.all[0]
            scores.emit(
                step=config.total_steps,
                loss=evaluation["loss"],
                metrics=evaluation["metrics"],
                seconds=0.0,  # it is the first evaluation again, whose event has its time
                peak_bytes=probe.peak_bytes,
            )
        except Stopped:
            state = "cancelled"
        self._emit(
            state,
            step=config.total_steps if state == "finished" else 0,
            total_steps=config.total_steps,
            artifact=None,
            best=None,
            seconds=self._seconds(),
            reason="nothing is trained: one evaluation" if state == "finished" else None,
        )
        return state

    def _cache_features(
        self, built: Built, rows: Sequence[EncodedRow], held_out: Sequence[EncodedRow], eval_batch: int
    ) -> Built:
        """Compute the features of a frozen body once for every row. After a stop the run ends before it needs them."""
        cache = FeatureCache(
            built.model, built.autocast, pad_id=built.pad_id, classes=built.classes, device=built.device
        )
        total = len(rows) + len(held_out)
        for before, group, size in ((0, rows, self._settings.micro_batch_size), (len(rows), held_out, eval_batch)):
            for done in cache.fill(group, size, lambda: self._should_continue(built)):
                self._emit("phase", name="caching", detail="features", done=before + done, total=total)
        return replace(built, features=cache)

    def _open_data(self) -> DataSet:
        settings = self._settings
        self._phase("tokenizing")
        data = open_data(settings.data, settings.task, settings.seed, should_continue=self._not_stopped)
        self._check_unchanged(data)
        if settings.task == "sequence_classification":
            self._class_names = data.label_names
        return data

    def _rows(self, data: DataSet) -> tuple[Sequence[EncodedRow], Scores]:
        settings = self._settings
        train_rows, eval_rows = self._recipe_rows(data.train), self._recipe_rows(data.eval)

        def on_progress(done: int) -> None:
            self._emit("phase", name="tokenizing", detail=None, done=done, total=len(data.train))

        data_settings = self._job.plan.data_settings
        tokenizer, task, folder = self._tokenizer, settings.task, self._folder
        if settings.recipe is None:
            rows = encode_cached(
                data, self._base, tokenizer, data_settings, task, folder, on_progress, self._not_stopped
            )
        else:  # rows that the base model has prepared are this run's own, and not cached
            rows = encode_set(train_rows, tokenizer, data_settings, task, folder, on_progress, self._not_stopped)
        # in pairs, because rows with nothing to learn from are left out, and each prediction must find its text
        pairs = list(encode_pairs(eval_rows, tokenizer, data_settings, task, self._not_stopped))
        self._phase("tokenizing", done=len(rows) + len(pairs))
        return rows, self._scores(pairs, data.eval if settings.recipe is not None else ())

    def _check_unchanged(self, data: DataSet) -> None:
        """Raises RunError where the rows or the base model are not those that the run was planned with."""
        if not self._job.plan.model.files:
            message = (
                "This run was planned by an earlier version: whether rows or base model have changed is not known."
            )
            self._emit("warning", step=self._progress.step, message=message)
            return
        changed = changed_since(self._job.plan, data)
        if changed:
            raise RunError(
                f"Not trained, for what was planned has changed since Start: {'; '.join(changed)}. Start it again to"
                " plan anew, or put the old files back."
            )

    def _scores(self, pairs: Sequence[tuple[Row, EncodedRow]], questions: Sequence[Row]) -> Scores:
        rows, encoded = [row for row, _ in pairs], [tokens for _, tokens in pairs]
        return Scores(self._job, self._emit, self._tokenizer, rows, encoded, self._class_names, questions, self._clock)

    def _recipe_rows(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows as the recipe writes them, if there is one."""
        settings = self._settings
        if settings.recipe is None:
            return rows

        def on_progress(done: int, total: int) -> None:
            self._emit("phase", name="answering", detail="what the base model knows", done=done, total=total)

        return prepared_rows(self._job.plan, list(rows), self._tokenizer, on_progress, self._not_stopped)

    def _resume(self, built: Built, scores: Scores) -> None:
        """Let a later attempt start from the newest checkpoint of this plan that can be read, with a warning for each
        that cannot; a first attempt never does."""
        faults: list[str] = []
        checkpoint = None
        if self._job.attempt > 1:
            checkpoint = newest_checkpoint(built, self._folder, self._job.plan.fingerprint, faults.append)
        for index, sentence in enumerate(faults):
            last = index == len(faults) - 1
            then = "begins anew" if checkpoint is None else f"goes on from update {checkpoint.progress.step:,}"
            self._emit("warning", step=0, message=f"{sentence} The run {then}." if last else sentence)
        if checkpoint is None:
            (self._folder / BEST_FILE).unlink(missing_ok=True)
            return
        checkpoint.restore(built)
        self._progress, history = checkpoint.progress, checkpoint.history
        self._sampled = self._progress.step
        if history is None:
            message = (
                "This checkpoint is of an earlier version, which kept no evaluations: best and patience begin anew."
            )
            self._emit("warning", step=self._progress.step, message=message)
            return
        scores.restore(history)
        self._seconds_before = history["seconds"]
        self._sampled = history.get("sampled", self._sampled)
        self._checkpoint_position = self._position(scores)

    def _train_to_end(
        self, built: Built, rows: Sequence[EncodedRow], scores: Scores, config: LoopConfig, eval_batch: int
    ) -> str:
        """Train, save and emit the end event; returns "finished" or "cancelled"."""
        try:
            reason = self._run_loop(built, rows, scores, config, eval_batch)
        except Stopped:
            return self._end(built, scores, "cancelled", config, None)
        stopped = reason is None and self._progress.step < config.total_steps
        return self._end(built, scores, "cancelled" if stopped else "finished", config, reason)

    def _run_loop(
        self, built: Built, rows: Sequence[EncodedRow], scores: Scores, config: LoopConfig, eval_batch: int
    ) -> str | None:
        """Make the updates that are left, with what is due after each. Returns why they ended early without a stop."""
        patience = self._settings.eval.patience
        self._answer_question(built)
        self._evaluate_and_sample(built, scores, config, eval_batch)
        updates = train(built, rows, config, self._progress, lambda: self._should_continue(built), PeakProbe())
        while True:
            if patience is not None and scores.without_best >= patience:
                return f"no better for {patience} evaluations"
            update = next(updates, None)
            if update is None:  # all are made, or a stop
                return None
            self._emit_step(update)
            self._evaluate_and_sample(built, scores, config, eval_batch)
            if self._checkpoint_due(built):
                self._checkpoint(built, scores)
            self._answer_question(built)

    def _evaluate_and_sample(self, built: Built, scores: Scores, config: LoopConfig, eval_batch: int) -> None:
        """The evaluation and the sample prompts that are due after this step and were not done yet.

        Raises Stopped where a stop comes in between; a resumed run then does them first.
        """
        step = self._progress.step
        end = step in (0, config.total_steps)
        if (end or _due(step, int(self._job.plan.value("eval_every")))) and scores.due(step):
            scores.evaluate(built, step, eval_batch, lambda: self._should_continue(built))
        if (end or _due(step, self._settings.sample.every)) and self._sampled != step:
            self._sample(built)
            self._sampled = step

    def _checkpoint_due(self, built: Built) -> bool:
        by_count = _due(self._progress.step, self._settings.save.every)
        return by_count or self._interval.due(self._seconds(), lambda: state_bytes(built))

    def _position(self, scores: Scores) -> tuple[int, ...]:
        """How far the run is; two checkpoints with the same position are the same."""
        return self._progress.step, len(scores.all), self._sampled

    def _checkpoint(self, built: Built, scores: Scores) -> None:
        """Write a checkpoint, unless the newest has this position. A full disk is a warning, and ends no training."""
        position = self._position(scores)
        if self._checkpoint_position == position:
            return
        start, step = self._clock(), self._progress.step
        history = scores.history() | {"seconds": self._seconds(), "sampled": self._sampled}
        fingerprint, keep = self._job.plan.fingerprint, self._settings.save.keep
        with warn_if_unwritten(self._emit, step, "The checkpoint", self._folder / CHECKPOINTS):
            path = write_checkpoint(built, self._progress, fingerprint, self._folder, keep, history)
            self._checkpoint_position = position
            self._emit("checkpoint", step=step, path=str(path.relative_to(self._folder)))
        self._interval.record(self._seconds(), self._clock() - start)

    def _save_after_failure(self, built: Built, scores: Scores, config: LoopConfig, error: Exception) -> None:
        """Write a checkpoint after a failure, and save the weights where the error's message says that they are kept.

        Nothing is saved where the failure came in the middle of an update.
        """
        self.saved_after_failure = {
            "total_steps": config.total_steps,
            "seconds": self._seconds(),
            "artifact": None,
            "best": None,
        }
        if not self._progress.weights_consistent:
            return
        try:
            if self._progress.step:
                self._checkpoint(built, scores)
            if isinstance(error, NotFiniteError):
                best = scores.stored_best()
                self._save(built, scores, "failed")
                self.saved_after_failure |= {
                    "artifact": self._method.artifact,
                    "best": _best(best),
                    "kept_step": self._progress.step,
                }
        except Exception as second:  # the first error is the one that ends the run
            message = f"What was learned could not be saved: {type(second).__name__}: {second}"
            self._emit("warning", step=self._progress.step, message=message)

    def _end(self, built: Built, scores: Scores, state: str, config: LoopConfig, reason: str | None) -> str:
        if state == "cancelled" and not self._progress.step:
            raise Stopped  # nothing was learned, so there is nothing to save
        self._phase("saving")
        best = scores.stored_best()
        if state == "cancelled":
            self._checkpoint(built, scores)
        self._save(built, scores, state)
        save = self._settings.save
        if state == "finished" and save.every is None and save.every_seconds is None:
            shutil.rmtree(self._folder / CHECKPOINTS, ignore_errors=True)  # they were only for resuming this run
        self._emit(
            state,
            step=self._progress.step,
            total_steps=config.total_steps,
            artifact=self._method.artifact,
            best=_best(best),
            seconds=self._seconds(),
            reason=reason,
        )
        return state

    def _save(self, built: Built, scores: Scores, state: str) -> None:
        """Save the last weights, and under best/ those of an earlier evaluation where that was better."""
        end = {"state": state, "step": self._progress.step, "seconds": self._seconds()}
        card = model_card(self._job.plan, scores.all, end, library_versions())
        save_artifact(built.model, self._method, self._folder, self._job.plan.model, self._class_names, card)
        shutil.rmtree(self._folder / "best", ignore_errors=True)
        file, best = self._folder / BEST_FILE, scores.stored_best()
        if best is not None and best[0] != self._progress.step:
            read_weights(built, file)
            end |= {"step": best[0], "state": "the best weights of the run"}
            card = model_card(self._job.plan, scores.all, end, library_versions())
            save_artifact(
                built.model, self._method, self._folder / "best", self._job.plan.model, self._class_names, card
            )
        if state == "finished":
            file.unlink(missing_ok=True)  # after any other end it stays: a resumed run needs the best so far

    def _emit_step(self, update: Update) -> None:
        self._emit(
            "step",
            step=update.step,
            epoch=update.epoch,
            loss=update.loss,
            learning_rate=update.learning_rate,
            grad_norm=update.grad_norm,
            trained_tokens=update.trained_tokens,
            input_tokens=update.input_tokens,
            examples=update.examples,
            seconds=self._seconds(),
            peak_bytes=update.peak_bytes,
        )

    def _sample(self, built: Built) -> None:
        """Answer the sample prompts of the settings, through the chat template where rows are written with it."""
        sample = self._settings.sample
        if not sample.prompts:
            return
        question = Question(
            sample.prompts,
            self._settings.eval.max_new_tokens,
            seed=self._settings.seed,
            chat=self._job.plan.chat,
            special_tokens=self._settings.data.special_tokens,
            system_prompt=self._job.plan.system_prompt,
        )
        generator = TextGenerator(built.model, self._tokenizer, self._class_names, self._not_stopped)
        for prompt, text in zip(sample.prompts, generator.answers(question), strict=True):
            self._emit("sample", step=self._progress.step, prompt=prompt, text=text)

    def _answer_question(self, built: Built) -> None:
        """Answer one question, where the training is paused or has had as much time as the last question took.

        The states of torch's random generators are restored afterwards.
        """
        if self._clock() < self._next_question_time and not self._commands.paused:
            return
        start = self._clock()
        for question in self._commands.take_tasks(1):
            with torch.random.fork_rng(devices=[]):
                was_training = built.model.training
                try:
                    question(built.model, self._tokenizer, self._class_names)
                except Exception as error:  # a question must not end a training
                    self._emit("warning", step=self._progress.step, message=f"A question failed: {error}")
                built.model.train(was_training)
            end = self._clock()
            self._next_question_time = end + (end - start)  # training gets as long as the question took

    def _not_stopped(self) -> bool:
        """Without pause: False after a stop. For work that cannot be paused in the middle."""
        return not self._commands.stopping

    def _should_continue(self, built: Built) -> bool:
        """Waits in a pause, answering questions meanwhile; False after a stop. For calls between micro-batches, where
        nothing is half computed."""
        if self._commands.paused and not self._commands.stopping:
            self._emit("paused", step=self._progress.step)
            start = self._clock()
            while self._commands.paused:
                self._answer_question(built)
                self._commands.wait_while_paused(0.1)
            self._paused_seconds += self._clock() - start
            self._emit("resumed", step=self._progress.step)
        return not self._commands.stopping

    def _seconds(self) -> float:
        """Seconds of training, without pauses and without the time between attempts."""
        return self._seconds_before + self._clock() - self._start_time - self._paused_seconds

    def _phase(self, name: str, detail: str | None = None, *, done: int | None = None) -> None:
        self._emit("phase", name=name, detail=detail, done=done, total=done)


def _best(best: tuple[int, float] | None) -> dict[str, Any] | None:
    return None if best is None else {"step": best[0], "value": best[1]}


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
