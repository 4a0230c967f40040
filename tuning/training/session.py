"""One attempt at a run, told as events: load, train, evaluate, checkpoint, save.

Comes in: a Job, an emit function, Commands.  Goes out: events, files in the job's folder, the end state.  The loop is a
generator; here is what happens between two of its updates.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tuning.card import library_versions, model_card
from tuning.data import DataSet, encode_kept, encode_pairs, encode_set, open_data
from tuning.errors import RunError
from tuning.job import Commands, Job
from tuning.methods import method_named
from tuning.plan import changed_since
from tuning.question import Question
from tuning.text import Encoded, Row, TextTokenizer
from tuning.training.answering import prepared_rows, prompted_rows
from tuning.training.build import Built, build, own_random_state, own_threads, pick_device
from tuning.training.checkpoint import (
    latest_checkpoint,
    read_checkpoint,
    read_weights,
    write_checkpoint,
)
from tuning.training.features import FeatureCache
from tuning.training.generate import Speaker
from tuning.training.loop import Course, NotFinite, Progress, Update, course_of, train
from tuning.training.probes import PeakProbe
from tuning.training.save import save_artifact, train_on
from tuning.training.scores import BEST_FILE, Scores
from tuning.training.unwritten import written_or_told


class Session:
    """Holds what one attempt needs; used once."""

    def __init__(
        self, job: Job, emit: Callable[..., Any], commands: Commands, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._job, self._emit, self._commands, self._clock = job, emit, commands, clock
        self._settings = job.plan.settings
        self._folder, self._base = Path(job.folder), Path(job.plan.model.path)
        self._method = method_named(self._settings.method.name)
        self._tokenizer = TextTokenizer(self._base)
        self._labels: tuple[str, ...] | None = None
        self._progress = Progress()
        self._started = self._paused_seconds = self._seconds_before = 0.0

    def run(self) -> str:
        """The whole attempt; returns "finished" or "cancelled", raises what went wrong."""
        settings = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        parameters = self._job.plan.value("total_parameters")
        with own_threads(parameters), own_random_state(settings.seed, pick_device(settings.device)):
            rows, scores = self._rows()
            self._phase("loading", "model")
            rate = self._job.plan.value("learning_rate")
            built = build(settings, str(self._base), self._labels, rate, self._tokenizer.pad_id or 0)
            train_on(built.model, self._job.plan, self._labels)
            torch.random.manual_seed(settings.seed)
            self._resume(built, scores)
            course = course_of(self._job.plan)
            self._emit(
                "started",
                total_steps=course.total_steps,
                step=self._progress.step,
                device=str(built.device),
                trainable_parameters=sum(weight.numel() for weight in built.trainable),
                train_rows=len(rows),
                eval_rows=len(scores.encoded),
                notices=[one.to_dict() for one in self._job.plan.notices],
            )
            self._started = self._clock()
            batch = self._job.plan.evaluation_rows()
            if not self._method.updates:
                return self._prompted(built, course, batch)
            if self._method.caches(settings.method):
                rows = list(rows)  # the cache tells rows apart by identity
                built = self._cached(built, rows, scores.encoded, batch)
            try:
                return self._train(built, rows, scores, course, batch)
            except NotFinite:
                self._save(built, scores, "failed")  # the last good weights: the update was not made
                raise

    def _prompted(self, built: Built, course: Course, eval_batch: int) -> str:
        """A method without updates: one evaluation, told at the first step and the last, for it does not change."""

        def tell(done: int, total: int) -> bool:
            self._emit("phase", name="answering", detail=None, done=done, total=total)
            return self._go_on(built)

        pairs = prompted_rows(self._job.plan, self._method, built.model, self._tokenizer, tell)
        scores = self._scores(pairs, ())
        probe = PeakProbe()
        scores.evaluate(built, 0, eval_batch, lambda: self._go_on(built), probe)
        self._between(built)
        done = bool(scores.all) and not self._commands.stopping
        if done:
            once = scores.all[0]
            scores.tell(course.total_steps, once["loss"], once["metrics"], 0.0, probe.peak_bytes)
        state = "finished" if done else "cancelled"
        self._emit(
            state,
            step=course.total_steps if done else 0,
            total_steps=course.total_steps,
            artifact=None,
            best=None,
            seconds=self._seconds(),
            reason="nothing is trained: one evaluation" if done else None,
        )
        return state

    def _cached(self, built: Built, rows: Sequence[Encoded], held_out: Sequence[Encoded], eval_batch: int) -> Built:
        """The states of a frozen body, computed once for every row; after a stop the run ends before it needs them."""
        cache = FeatureCache(
            built.model, built.autocast, pad_id=built.pad_id, classes=built.classes, device=built.device
        )
        total = len(rows) + len(held_out)
        for before, group, size in ((0, rows, self._settings.micro_batch_size), (len(rows), held_out, eval_batch)):
            for done in cache.fill(group, size, lambda: self._go_on(built)):
                self._emit("phase", name="caching", detail="features", done=before + done, total=total)
        return replace(built, features=cache)

    def _rows(self) -> tuple[Sequence[Encoded], Scores]:
        settings = self._settings
        self._phase("tokenizing")
        data = open_data(settings.data, settings.task, settings.seed)
        self._compare(data)
        if settings.task == "sequence_classification":
            self._labels = data.label_names
        train_rows, eval_rows = self._taught(data.train), self._taught(data.eval)

        def tell(done: int) -> None:
            self._emit("phase", name="tokenizing", detail=None, done=done, total=len(data.train))

        written = self._job.plan.data_settings
        how = (self._tokenizer, written, settings.task, self._folder, tell)
        kept = settings.recipe is None  # rows that the base model has prepared are this run's own
        rows = encode_kept(data, self._base, *how) if kept else encode_set(train_rows, *how)
        # in pairs, because rows with nothing to learn from are left out, and each guess must find its text
        pairs = list(encode_pairs(eval_rows, self._tokenizer, written, settings.task))
        self._phase("tokenizing", done=len(rows) + len(pairs))
        return rows, self._scores(pairs, data.eval if settings.recipe is not None else ())

    def _compare(self, data: DataSet) -> None:
        """A run trains on the rows and the base model that it was planned with. Raises RunError where they changed."""
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

    def _scores(self, pairs: Sequence[tuple[Row, Encoded]], questions: Sequence[Row]) -> Scores:
        rows, encoded = [row for row, _ in pairs], [one for _, one in pairs]
        return Scores(self._job, self._emit, self._tokenizer, rows, encoded, self._labels, questions, self._clock)

    def _taught(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows as the recipe writes them, if there is one."""
        settings = self._settings
        if settings.recipe is None:
            return rows

        def tell(done: int, total: int) -> bool:
            self._emit("phase", name="answering", detail="what the base model knows", done=done, total=total)
            return not self._commands.stopping

        return prepared_rows(self._job.plan, list(rows), self._tokenizer, tell)

    def _resume(self, built: Built, scores: Scores) -> None:
        """A later attempt goes on from the newest checkpoint of the same plan; a first one never does."""
        place = latest_checkpoint(self._folder, self._job.plan.fingerprint) if self._job.attempt > 1 else None
        if place is None:
            (self._folder / BEST_FILE).unlink(missing_ok=True)
            return
        self._progress, so_far = read_checkpoint(built, place)
        if so_far is None:
            message = (
                "This checkpoint is of an earlier version, which kept no evaluations: best and patience begin anew."
            )
            self._emit("warning", step=self._progress.step, message=message)
            return
        scores.go_on_from(so_far)
        self._seconds_before = so_far["seconds"]

    def _train(self, built: Built, rows: Sequence[Encoded], scores: Scores, course: Course, eval_batch: int) -> str:
        settings = self._settings

        def evaluate() -> None:
            scores.evaluate(built, self._progress.step, eval_batch, lambda: self._go_on(built))

        self._between(built)
        if self._progress.step == 0:
            evaluate()
            self._sample(built)
        for update in train(built, rows, course, self._progress, lambda: self._go_on(built), PeakProbe()):
            self._tell(update)
            last = update.step == course.total_steps
            if last or _due(update.step, int(self._job.plan.value("eval_every"))):
                evaluate()
            if last or _due(update.step, settings.sample.every):
                self._sample(built)
            if _due(update.step, settings.save.every):
                so_far = scores.so_far() | {"seconds": self._seconds()}
                fingerprint, keep = self._job.plan.fingerprint, settings.save.keep
                with written_or_told(self._emit, update.step, "The checkpoint", self._folder / "checkpoints"):
                    place = write_checkpoint(built, self._progress, fingerprint, self._folder, keep, so_far)
                    self._emit("checkpoint", step=update.step, path=str(place.relative_to(self._folder)))
            self._between(built)
            if settings.eval.patience is not None and scores.without_best >= settings.eval.patience:
                return self._end(
                    built, scores, "finished", course, f"no better for {settings.eval.patience} evaluations"
                )
        stopped = self._progress.step < course.total_steps
        return self._end(built, scores, "cancelled" if stopped else "finished", course, None)

    def _end(self, built: Built, scores: Scores, state: str, course: Course, reason: str | None) -> str:
        self._phase("saving")
        self._between(built)  # before saving, which may leave the best weights in the model
        kept = scores.kept_best()
        best = {"step": kept[0], "value": kept[1]} if kept is not None else None
        self._save(built, scores, state)
        self._emit(
            state,
            step=self._progress.step,
            total_steps=course.total_steps,
            artifact=self._method.artifact,
            best=best,
            seconds=self._seconds(),
            reason=reason,
        )
        return state

    def _save(self, built: Built, scores: Scores, state: str) -> None:
        """The last weights as the artifact and, where an earlier evaluation was better, those under best/ too."""
        end = {"state": state, "step": self._progress.step, "seconds": self._seconds()}
        card = model_card(self._job.plan, scores.all, end, library_versions())
        save_artifact(built.model, self._method, self._folder, self._job.plan.model, self._labels, card)
        shutil.rmtree(self._folder / "best", ignore_errors=True)
        file, best = self._folder / BEST_FILE, scores.kept_best()
        if best is not None and best[0] != self._progress.step:
            read_weights(built, file)
            end |= {"step": best[0], "state": "the best weights of the run"}
            card = model_card(self._job.plan, scores.all, end, library_versions())
            save_artifact(built.model, self._method, self._folder / "best", self._job.plan.model, self._labels, card)
        if state != "cancelled" or latest_checkpoint(self._folder, self._job.plan.fingerprint) is None:
            file.unlink(missing_ok=True)  # a run that can go on still measures itself against it

    def _tell(self, update: Update) -> None:
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
        """Let the model answer the settings' sample prompts; as a chat where rows are written so."""
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
        said = Speaker(built.model, self._tokenizer, self._labels).answers(question)
        for prompt, text in zip(sample.prompts, said, strict=True):
            self._emit("sample", step=self._progress.step, prompt=prompt, text=text)

    def _between(self, built: Built) -> None:
        """Answer what was asked. A question draws from its own generator; should it not, the run's is put back."""
        for question in self._commands.take_asks():
            with torch.random.fork_rng(devices=[]):
                was_training = built.model.training
                try:
                    question(built.model, self._tokenizer, self._labels)
                except Exception as error:  # a question must not end a training
                    self._emit("warning", step=self._progress.step, message=f"A question failed: {error}")
                built.model.train(was_training)

    def _go_on(self, built: Built) -> bool:
        """Called between micro-batches: holds while paused, False on a stop."""
        if self._commands.paused and not self._commands.stopping:
            self._emit("paused", step=self._progress.step)
            began = self._clock()
            while self._commands.paused:
                self._between(built)
                self._commands.wait_while_paused(0.1)
            self._paused_seconds += self._clock() - began
            self._emit("resumed", step=self._progress.step)
        return not self._commands.stopping

    def _seconds(self) -> float:
        """Wall time since the training began, without pauses and without what lay between its attempts."""
        return self._seconds_before + self._clock() - self._started - self._paused_seconds

    def _phase(self, name: str, detail: str | None = None, *, done: int | None = None) -> None:
        self._emit("phase", name=name, detail=detail, done=done, total=done)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
