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

from tuning.core.errors import RunError, Stopped
from tuning.data import DataSet, encode_cached, encode_pairs, encode_set, open_data
from tuning.methods import method_named
from tuning.plan.plan import changed_since
from tuning.text import Encoded, Row, TextTokenizer
from tuning.text.question import Question
from tuning.training.base_answers import prepared_rows, prompted_rows
from tuning.training.build import (
    Built,
    build,
    look_between_tensors,
    own_random_state,
    own_threads,
    pick_device,
)
from tuning.training.checkpoint import (
    Interval,
    newest_checkpoint,
    read_weights,
    state_bytes,
    write_checkpoint,
)
from tuning.training.disk_full import written_or_told
from tuning.training.features import FeatureCache
from tuning.training.generate import Speaker
from tuning.training.job import Commands, Job
from tuning.training.loop import Course, NotFinite, Progress, Update, course_of, train
from tuning.training.model_card import library_versions, model_card
from tuning.training.probes import PeakProbe
from tuning.training.save import save_artifact, train_on
from tuning.training.scores import BEST_FILE, Scores


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
        self._no_question_before = 0.0
        self._sampled = -1
        """The step whose sample prompts were all answered."""
        self._kept_at: tuple[int, ...] | None = None
        """What the newest checkpoint holds, as `_position`."""
        self.left: dict[str, Any] = {}
        """What a failed attempt has left, for its end event."""

    def run(self) -> str:
        """The whole attempt; returns "finished" or "cancelled", raises what went wrong, and Stopped where there was
        nothing to keep yet."""
        settings = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        parameters = self._job.plan.value("total_parameters")
        with own_threads(parameters), own_random_state(settings.seed, pick_device(settings.device)):
            data = self._open_data()
            rows, scores = self._rows(data)
            self._phase("loading", "model")
            rate = self._job.plan.value("learning_rate")
            with look_between_tensors(self._wanted):
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
            self._interval = Interval(settings.save.every_seconds, self._seconds())
            batch = self._job.plan.evaluation_rows()
            if not self._method.updates:
                return self._prompted(built, data, course, batch)
            if self._method.caches_features(settings.method):
                rows = list(rows)  # the cache tells rows apart by identity
                built = self._cached(built, rows, scores.encoded, batch)
            try:
                return self._train(built, rows, scores, course, batch)
            except Exception as error:
                self._keep_what_is_whole(built, scores, course, error)
                raise

    def _prompted(self, built: Built, data: DataSet, course: Course, eval_batch: int) -> str:
        """A method without updates: one evaluation, told at the first step and the last, for it does not change."""

        def tell(done: int, total: int) -> None:
            self._emit("phase", name="answering", detail=None, done=done, total=total)
            self._go_on(built)

        state, probe = "finished", PeakProbe()
        try:
            how = (self._method, built.model, self._tokenizer, tell, self._wanted)
            pairs = prompted_rows(self._job.plan, data, *how)
            scores = self._scores(pairs, ())
            scores.evaluate(built, 0, eval_batch, lambda: self._go_on(built), probe)
            once = scores.all[0]
            scores.tell(course.total_steps, once["loss"], once["metrics"], 0.0, probe.peak_bytes)
        except Stopped:
            state = "cancelled"
        self._emit(
            state,
            step=course.total_steps if state == "finished" else 0,
            total_steps=course.total_steps,
            artifact=None,
            best=None,
            seconds=self._seconds(),
            reason="nothing is trained: one evaluation" if state == "finished" else None,
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

    def _open_data(self) -> DataSet:
        settings = self._settings
        self._phase("tokenizing")
        data = open_data(settings.data, settings.task, settings.seed, go_on=self._wanted)
        self._compare(data)
        if settings.task == "sequence_classification":
            self._labels = data.label_names
        return data

    def _rows(self, data: DataSet) -> tuple[Sequence[Encoded], Scores]:
        settings = self._settings
        train_rows, eval_rows = self._taught(data.train), self._taught(data.eval)

        def tell(done: int) -> None:
            self._emit("phase", name="tokenizing", detail=None, done=done, total=len(data.train))

        written = self._job.plan.data_settings
        how = (self._tokenizer, written, settings.task, self._folder, tell, self._wanted)
        kept = settings.recipe is None  # rows that the base model has prepared are this run's own
        rows = encode_cached(data, self._base, *how) if kept else encode_set(train_rows, *how)
        # in pairs, because rows with nothing to learn from are left out, and each guess must find its text
        pairs = list(encode_pairs(eval_rows, self._tokenizer, written, settings.task, self._wanted))
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

        def tell(done: int, total: int) -> None:
            self._emit("phase", name="answering", detail="what the base model knows", done=done, total=total)

        return prepared_rows(self._job.plan, list(rows), self._tokenizer, tell, self._wanted)

    def _resume(self, built: Built, scores: Scores) -> None:
        """A later attempt goes on from the newest checkpoint of the same plan that can be read; a first one never does.
        What could not be read is told."""
        told: list[str] = []
        found = None
        if self._job.attempt > 1:
            found = newest_checkpoint(built, self._folder, self._job.plan.fingerprint, told.append)
        for number, sentence in enumerate(told, 1):
            last = number == len(told)
            then = "begins anew" if found is None else f"goes on from update {found.progress.step:,}"
            self._emit("warning", step=0, message=f"{sentence} The run {then}." if last else sentence)
        if found is None:
            (self._folder / BEST_FILE).unlink(missing_ok=True)
            return
        found.restore(built)
        self._progress, so_far = found.progress, found.so_far
        self._sampled = self._progress.step
        if so_far is None:
            message = (
                "This checkpoint is of an earlier version, which kept no evaluations: best and patience begin anew."
            )
            self._emit("warning", step=self._progress.step, message=message)
            return
        scores.go_on_from(so_far)
        self._seconds_before = so_far["seconds"]
        self._sampled = so_far.get("sampled", self._sampled)
        self._kept_at = self._position(scores)

    def _train(self, built: Built, rows: Sequence[Encoded], scores: Scores, course: Course, eval_batch: int) -> str:
        try:
            reason = self._updates(built, rows, scores, course, eval_batch)
        except Stopped:
            return self._end(built, scores, "cancelled", course, None)
        stopped = reason is None and self._progress.step < course.total_steps
        return self._end(built, scores, "cancelled" if stopped else "finished", course, reason)

    def _updates(
        self, built: Built, rows: Sequence[Encoded], scores: Scores, course: Course, eval_batch: int
    ) -> str | None:
        """The updates that are left, with what is due after each; why they ended early, where it was no stop."""
        patience = self._settings.eval.patience
        self._between(built)
        self._measured(built, scores, course, eval_batch)
        updates = train(built, rows, course, self._progress, lambda: self._go_on(built), PeakProbe())
        while True:
            if patience is not None and scores.without_best >= patience:
                return f"no better for {patience} evaluations"
            update = next(updates, None)
            if update is None:  # all are made, or a stop
                return None
            self._tell(update)
            self._measured(built, scores, course, eval_batch)
            if self._checkpoint_due(built):
                self._checkpoint(built, scores)
            self._between(built)

    def _measured(self, built: Built, scores: Scores, course: Course, eval_batch: int) -> None:
        """What is due behind this step, as far as it was not done: evaluation, sample prompts. Raises Stopped where a
        stop comes in between, so that whoever goes on does it first."""
        step = self._progress.step
        end = step in (0, course.total_steps)
        if (end or _due(step, int(self._job.plan.value("eval_every")))) and scores.due(step):
            scores.evaluate(built, step, eval_batch, lambda: self._go_on(built))
        if (end or _due(step, self._settings.sample.every)) and self._sampled != step:
            self._sample(built)
            self._sampled = step

    def _checkpoint_due(self, built: Built) -> bool:
        by_count = _due(self._progress.step, self._settings.save.every)
        return by_count or self._interval.due(self._seconds(), lambda: state_bytes(built))

    def _position(self, scores: Scores) -> tuple[int, ...]:
        """Where the run is, as far as a checkpoint can tell."""
        return self._progress.step, len(scores.all), self._sampled

    def _checkpoint(self, built: Built, scores: Scores) -> None:
        """Write one, unless the newest is of this very moment. A full disk is told, and does not end a training."""
        position = self._position(scores)
        if self._kept_at == position:
            return
        began, step = self._clock(), self._progress.step
        so_far = scores.so_far() | {"seconds": self._seconds(), "sampled": self._sampled}
        fingerprint, keep = self._job.plan.fingerprint, self._settings.save.keep
        with written_or_told(self._emit, step, "The checkpoint", self._folder / "checkpoints"):
            place = write_checkpoint(built, self._progress, fingerprint, self._folder, keep, so_far)
            self._kept_at = position
            self._emit("checkpoint", step=step, path=str(place.relative_to(self._folder)))
        self._interval.wrote(self._seconds(), self._clock() - began)

    def _keep_what_is_whole(self, built: Built, scores: Scores, course: Course, error: Exception) -> None:
        """After a failure: a checkpoint, and the weights themselves where the message says that they are kept. Neither
        where the failure came while an update moved them."""
        self.left = {"total_steps": course.total_steps, "seconds": self._seconds(), "artifact": None, "best": None}
        if not self._progress.whole:
            return
        try:
            if self._progress.step:
                self._checkpoint(built, scores)
            if isinstance(error, NotFinite):
                best = scores.kept_best()
                self._save(built, scores, "failed")
                self.left |= {"artifact": self._method.artifact, "best": _best(best), "kept_step": self._progress.step}
        except Exception as later:  # what went wrong first is what is told as the end
            message = f"What was learned could not be saved: {type(later).__name__}: {later}"
            self._emit("warning", step=self._progress.step, message=message)

    def _end(self, built: Built, scores: Scores, state: str, course: Course, reason: str | None) -> str:
        if state == "cancelled" and not self._progress.step:
            raise Stopped  # nothing was learned, so there is nothing to keep
        self._phase("saving")
        best = scores.kept_best()
        if state == "cancelled":
            self._checkpoint(built, scores)
        self._save(built, scores, state)
        save = self._settings.save
        if state == "finished" and save.every is None and save.every_seconds is None:
            shutil.rmtree(self._folder / "checkpoints", ignore_errors=True)  # nobody asked for them, and it is over
        self._emit(
            state,
            step=self._progress.step,
            total_steps=course.total_steps,
            artifact=self._method.artifact,
            best=_best(best),
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
        if state == "finished":
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
        said = Speaker(built.model, self._tokenizer, self._labels, self._wanted).answers(question)
        for prompt, text in zip(sample.prompts, said, strict=True):
            self._emit("sample", step=self._progress.step, prompt=prompt, text=text)

    def _between(self, built: Built) -> None:
        """Answer one question, where the training has had as much time as the last one took, or is paused anyway. A
        question draws from its own generator; should it not, the run's is put back."""
        if self._clock() < self._no_question_before and not self._commands.paused:
            return
        began = self._clock()
        for question in self._commands.take_asks(1):
            with torch.random.fork_rng(devices=[]):
                was_training = built.model.training
                try:
                    question(built.model, self._tokenizer, self._labels)
                except Exception as error:  # a question must not end a training
                    self._emit("warning", step=self._progress.step, message=f"A question failed: {error}")
                built.model.train(was_training)
            self._no_question_before = 2 * self._clock() - began

    def _wanted(self) -> bool:
        """For what cannot be held half-way: False on a stop."""
        return not self._commands.stopping

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


def _best(kept: tuple[int, float] | None) -> dict[str, Any] | None:
    return None if kept is None else {"step": kept[0], "value": kept[1]}


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
