"""Artifacts of runs: as trained, of the best weights, merged into the base model, or recovered after a crash.

A run that has ended has a folder for each, and can be the base model of a next run. Whatever needs torch is done by the
executor.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from tuning.core.errors import ModelError, Notice, RunError, ShouldContinue, TuningError
from tuning.methods import method_named
from tuning.methods.base import Method
from tuning.models.base_model import BaseModel, open_folder
from tuning.models.file_digests import adapter_files, changes
from tuning.runs.executors.base import Executor, Task, Work
from tuning.runs.run_row import RunRow
from tuning.runs.store import RunStore
from tuning.settings.schema import Settings
from tuning.training.checkpoint_files import (
    RecoverySource,
    checkpoint_step,
    newest_complete,
    recovery_words,
    stored_weights,
)
from tuning.training.job import Job
from tuning.training.model_card import library_versions, model_card

log = logging.getLogger(__name__)

MAKE_SECONDS = 600.0
ARTIFACT_KINDS = ("trained", "best", "merged", "best-merged")
NO_EXECUTOR = "This result has to be made first, which takes the program that owns the runs."
CLASSES = "sequence_classification"
CUT_OFF = ("interrupted", "failed")
"""Ends of a run after which it is not known which of its weights are the best."""
UNSAVED = (*CUT_OFF, "cancelled")
"""Ends of a run after which its last attempt may not be saved; a checkpoint has it then."""


class ResultState(TypedDict):
    """Whether an artifact of a run is there.

    `state` is `ready`, `absent` (it can be made), `making`, `failed`, or `none` where there is no such artifact.
    """

    state: str
    message: str | None


class Results:
    """The artifacts of the runs of one home folder. Without an executor none can be made, only those there be read."""

    def __init__(self, store: RunStore, executor: Executor | None = None) -> None:
        self._store, self._executor = store, executor
        self._making: dict[tuple[str, int, str], Task] = {}

    def folder(self, row: RunRow, artifact_kind: str = "trained") -> Path:
        """The folder of an artifact, made now where it is missing. Raises RunError where there is no such artifact."""
        source = self._source(row, artifact_kind)
        return source if isinstance(source, Path) else self._make_now(source)

    def ready(self, row: RunRow, artifact_kind: str = "trained") -> Path:
        """The folder of an artifact that is there. Raises RunError where it would have to be made first."""
        source = self._source(row, artifact_kind)
        if not isinstance(source, Path):
            message = (
                f"The {artifact_kind} result of {row.name} has to be made first:"
                f' POST {{"form": "{artifact_kind}"}} to results'
            )
            raise RunError(f"{message} of the run, or choose it in the run's menu.")
        return source

    def make(self, row: RunRow, artifact_kind: str) -> None:
        """Begin to make an artifact, where it is not there and not being made. Raises RunError."""
        source = self._source(row, artifact_kind)
        if isinstance(source, Path):
            return
        if self._executor is None:
            raise RunError(NO_EXECUTOR)
        key = (row.run_id, row.attempt, artifact_kind)
        if key not in self._making or self._making[key].done.done():
            self._making[key] = self._executor.submit_task(source)

    def state(self, row: RunRow, artifact_kind: str) -> ResultState:
        """Whether an artifact is there; where the method saves a whole model there is no merged one beside it."""
        try:
            source = self._source(row, artifact_kind)
        except RunError as error:
            return {"state": "none", "message": str(error)}
        if artifact_kind.endswith("merged") and _method(row).artifact == "model":
            return {"state": "none", "message": "It is a whole model as it is."}
        if isinstance(source, Path):
            return {"state": "ready", "message": None}
        task = self._making.get((row.run_id, row.attempt, artifact_kind))
        if task is None:
            return {"state": "absent", "message": None}
        if not task.done.done():
            return {"state": "making", "message": None}
        fault = None if task.done.cancelled() else task.done.exception()
        return {"state": "failed" if fault else "absent", "message": str(fault) if fault else None}

    def _source(self, row: RunRow, artifact_kind: str) -> Path | Work:
        """The folder of an artifact, or the work that makes it. Raises RunError where there is no such artifact."""
        if artifact_kind not in ARTIFACT_KINDS:
            raise RunError(f"A result is {', '.join(ARTIFACT_KINDS)}; there is no {artifact_kind!r:.40}.")
        _refuse_unended(row)
        best = artifact_kind.startswith("best")
        recovery = self._recovery(row)
        artifact = self._artifact(row, best=best)
        best = artifact.parent != self._store.run_folder(row.run_id)  # the best weights may be the last ones
        if not artifact_kind.endswith("merged") or artifact.name == "model":
            return artifact if recovery is None else recovery
        merge, merged = self._merge(row, best=best), artifact.parent / "merged"
        if recovery is None:
            return merged if _is_fresh(merged, artifact) else merge

        def recover_and_merge(should_continue: ShouldContinue, run_waits: bool) -> Path:
            recovery(should_continue, run_waits)
            return merge(should_continue, run_waits)

        return recover_and_merge

    # -- as the base of a next run ---------------------------------------------------------------------------------
    def model(self, settings: Settings) -> BaseModel:
        """A run's result as the base model of a next run, whose `model` is run:ID, or run:ID/best for its best weights.

        It is the merged model, or the base model with the adapter to train on where it cannot be merged; never the bare
        base model. Where it has to be made first (`make_base`) a notice says so, and its shape is computed. Raises
        ModelError.
        """
        row, best = self._named(settings.model)
        method, base = _method(row), BaseModel.from_dict(row.plan["model"])
        self._check_base(row, settings, method, base)
        artifact, title = self._artifact(row, best=best), f"the {'best' if best else 'result'} of {row.name}"
        fields: dict[str, Any] = {"spec": settings.model, "source": "run", "title": title, "parent": base}
        fields["learned_head"] = settings.task == row.settings["task"] == CLASSES
        recovered = self._recovered_notice(row, artifact)
        if self._trains_on(row, settings, method):
            model = self._adapter_to_train_on(row, base, artifact, fields)
            return replace(model, notices=(*model.notices, *recovered))
        shape = method.merged_shape(base.shape, _block(row), _classes(row))
        if shape is None:
            raise _not_mergeable(row, settings, method)
        merged = artifact if artifact.name == "model" else artifact.parent / "merged"
        if _is_fresh(merged, artifact) and not self._outdated(row):
            model = replace(open_folder(merged, settings.model, "run", title), parent=base)
        else:
            model = replace(
                base,
                **fields,
                shape=shape,
                revision=None,
                files={},
                notices=(*base.notices, _to_be_made(row, method)),
            )
        return replace(model, notices=(*model.notices, *recovered, *_rounded_again(row, settings)))

    def own_base(self, settings: Settings) -> BaseModel:
        """The base model that the run was trained from. Raises ModelError."""
        row, _ = self._named(settings.model)
        return BaseModel.from_dict(row.plan["model"])

    def make_base(self, settings: Settings) -> None:
        """Make the artifact that `settings.model` names, where it is not there. Raises ModelError."""
        row, best = self._named(settings.model)
        trains_on = self._trains_on(row, settings, _method(row))
        try:
            self.folder(row, ("best" if best else "trained") if trains_on else "best-merged" if best else "merged")
        except RunError as error:
            raise ModelError(str(error), settings.model, "a run with a result") from None

    def _named(self, spec: str) -> tuple[RunRow, bool]:
        """The run that run:ID or run:ID/best names, and whether its best weights are meant."""
        run_id, slash, which = spec.removeprefix("run:").partition("/")
        if slash and which != "best":
            message = f"a run has a last result ({f'run:{run_id}'!r}) and a best one ({f'run:{run_id}/best'!r})"
            raise ModelError(message, spec, "run:ID or run:ID/best")
        try:
            row = self._store.run(run_id)
        except RunError as error:
            raise ModelError(str(error), spec, "a run of this home folder") from None
        return row, which == "best"

    def _check_base(self, row: RunRow, settings: Settings, method: Method[Any], base: BaseModel) -> None:
        """Raises ModelError where this run cannot be the base of another."""
        spec = settings.model
        if row.deleted is not None:
            raise ModelError(
                f"{row.name} was deleted; undelete it, or choose another model", spec, "a run that is kept"
            )
        if row.active:
            raise ModelError(f"{row.name} has not ended yet; stop it or wait for it", spec, "a run that has ended")
        if not method.updates:
            own = base.spec
            message = f"{row.name} trained nothing ({method.title}), so it has no result; set model to its own, {own!r}"
            raise ModelError(message, spec, own)
        if row.settings["task"] != settings.task and row.settings["task"] != "causal_lm":
            message = f"{row.name} has learned classes and cannot write any more; use it for {row.settings['task']}"
            raise ModelError(message, spec, row.settings["task"])
        if not self.has_weights(row):
            message = (
                f"{row.name} ended before anything was {_saved_or_learned(row)}, so there is nothing to train on from"
            )
            raise ModelError(message, spec, "a run with a result")
        try:
            self._artifact(row, best=spec.endswith("/best"))
            refuse_changed_base(row)
        except RunError as error:
            raise ModelError(str(error), spec, "a run whose result is whole") from None

    def _trains_on(self, row: RunRow, settings: Settings, method: Method[Any]) -> bool:
        """Whether the run's adapter itself is trained further, on its own base model."""
        if (
            method.shapes_adapter is None
            or settings.method.name != method.name
            or settings.task != row.settings["task"]
        ):
            return False
        return not _differing(_block(row), settings.method, method.shapes_adapter)

    def _adapter_to_train_on(self, row: RunRow, base: BaseModel, artifact: Path, fields: dict[str, Any]) -> BaseModel:
        is_there = artifact.is_dir() and not self._outdated(row)
        message = f"training goes on with the adapter of {row.name}, which is not merged into its base model"
        if not is_there:
            message += "; it is brought back at Start"
        notice = Notice(field="model", message=f"{message}.")
        files = adapter_files(artifact) if is_there else {}
        return replace(base, **fields, adapter=str(artifact), adapter_files=files, notices=(*base.notices, notice))

    # -- folders ---------------------------------------------------------------------------------------------------
    def _artifact(self, row: RunRow, *, best: bool) -> Path:
        """Where the artifact is or will be: that of the best weights where they are not the last. Raises RunError."""
        folder, name = self._store.run_folder(row.run_id), _method(row).artifact
        if not best:
            return folder / name
        end = self._end(row)
        best_of_run = end.get("best")
        if best_of_run is not None:  # by the end of this attempt, for one before it may have saved another best
            if best_of_run["step"] == end.get("kept_step", end.get("step")):  # the last weights were the best
                return folder / name
            saved = folder / "best" / name
            if saved.is_dir():
                return saved
            why = f"those of update {best_of_run['step']:,} are gone from its folder"
        elif (source := self.recovery_source(row)) is not None and source["kind"] == "best":
            return folder / name  # it is recovered from the best weights so far
        elif row.state in CUT_OFF:
            why = "it was cut off, let it go on first"
        else:
            why = "no evaluation told which they are"
        raise RunError(f"{row.name} has no best weights: {why}; or take the last ones.")

    def _end(self, row: RunRow) -> dict[str, Any]:
        """What the event of a run's end says."""
        ends = self._store.events(row.run_id, row.state)
        return ends[-1].data if ends else {}

    def has_weights(self, row: RunRow) -> bool:
        """Whether a run has saved an artifact, or one can be recovered from a checkpoint or its best weights."""
        return (
            _has_files(self._store.run_folder(row.run_id) / _method(row).artifact)
            or self.recovery_source(row) is not None
        )

    def recovery_source(self, row: RunRow) -> RecoverySource | None:
        """What the artifact of a run that was cut off is or will be recovered from: a checkpoint or the best weights.

        None where the run has not ended, has saved its artifact itself, or has left neither. The files of a checkpoint
        are not read, so one that is damaged counts here; the card of the recovered artifact names what was read.
        """
        folder = self._store.run_folder(row.run_id)
        if row.state not in UNSAVED or (self._end(row).get("artifact") and _has_files(folder / _method(row).artifact)):
            return None
        stored = stored_weights(folder)
        return None if stored is None else stored[1]

    def _recovered_notice(self, row: RunRow, artifact: Path) -> tuple[Notice, ...]:
        """Of which update the last weights are, where they were not saved by the run's own end."""
        source = self.recovery_source(row)
        if source is None or artifact.parent != self._store.run_folder(row.run_id):
            return ()
        when = "before a checkpoint" if source["kind"] == "best" else "after it"
        message = f"the weights of {row.name} are those of {recovery_words(source)}: the run was cut off {when}."
        return (Notice(field="model", message=message),)

    def checkpoint_step(self, row: RunRow) -> int | None:
        """The step of the run's newest checkpoint that has all its files; None where there is none.

        The files are not read, so one that is damaged counts here, and is skipped by the attempt that resumes.
        """
        newest = newest_complete(self._store.run_folder(row.run_id))
        return checkpoint_step(newest) if newest is not None else None

    def resumes_from(self, row: RunRow) -> int | None:
        """The step that a run would resume from, 0 where it would begin anew; None where it cannot resume."""
        step = self.checkpoint_step(row)
        if row.state in ("cancelled", "interrupted") or (row.state == "failed" and step is not None):
            return step or 0
        return None

    def _outdated(self, row: RunRow) -> bool:
        """Whether the artifact is older than the stored weights of an attempt that was cut off."""
        artifact, stored = (
            self._store.run_folder(row.run_id) / _method(row).artifact,
            stored_weights(self._store.run_folder(row.run_id)),
        )
        if row.state not in UNSAVED or stored is None or not artifact.is_dir():
            return False
        return stored[0].stat().st_mtime > artifact.stat().st_mtime

    def _recovery(self, row: RunRow) -> Callable[[ShouldContinue, bool], Path] | None:
        """The work that recovers the artifact of a run that was cut off; None where it is there. Raises RunError."""
        folder, method = self._store.run_folder(row.run_id) / _method(row).artifact, _method(row)
        if _has_files(folder) and not self._outdated(row):
            return None
        if not method.updates:
            raise RunError(f"{row.name} trained nothing ({method.title}), so it has nothing to download.")
        if not self.has_weights(row):
            reason = f"it ended before anything was {_saved_or_learned(row)}"
            raise RunError(f"{row.name} has left nothing to download: {reason}.")
        refuse_changed_base(row)
        job = self._job(row)

        def recover(should_continue: ShouldContinue, run_waits: bool) -> Path:
            from tuning.training.merge import recovered_artifact

            def card_of(source: RecoverySource) -> str:
                return self._card(row, job, source)

            return _errors_in_words(lambda: recovered_artifact(job, card_of, should_continue))

        return recover

    def _merge(self, row: RunRow, *, best: bool) -> Callable[[ShouldContinue, bool], Path]:
        """The work that merges the last or the best weights into the base model. Raises RunError."""
        job, method = self._job(row), _method(row)
        shape = method.merged_shape(job.plan.model.shape, job.plan.settings.method, job.plan.class_count)
        if shape is None:
            raise RunError(f"{method.title} cannot be merged into the base model; download it as it was trained.")
        refuse_changed_base(row)

        def merge(should_continue: ShouldContinue, run_waits: bool) -> Path:
            from tuning.training.merge import merged_folder

            return _errors_in_words(
                lambda: merged_folder(
                    job,
                    self._card(row, job, None if best else self.recovery_source(row), merged=True),
                    best=best,
                    should_continue=should_continue,
                )
            )

        return merge

    def _card(self, row: RunRow, job: Job, source: RecoverySource | None, *, merged: bool = False) -> str:
        evals = [event.data for event in self._store.events(row.run_id, "eval")]
        end = {"state": row.state, "step": row.step, "seconds": row.seconds}
        return model_card(job.plan, evals, end, library_versions(), merged=merged, source=source)

    def _make_now(self, work: Work) -> Path:
        if self._executor is None:
            raise RunError(NO_EXECUTOR)
        folder: Path = self._executor.run_between_updates(work, timeout=MAKE_SECONDS)
        return folder

    def _job(self, row: RunRow) -> Job:
        folder = self._store.run_folder(row.run_id)
        try:
            plain: dict[str, Any] = json.loads((folder / "job.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise RunError(f"job.json of {row.name} is gone, so its result cannot be made again.") from None
        return Job.from_dict({**plain, "folder": str(folder)})


def _errors_in_words(make: Callable[[], Path]) -> Path:
    """What `make` returns. Raises RunError, with a sentence, for whatever it raises, such as a full disk."""
    try:
        return make()
    except TuningError:
        raise
    except Exception as error:
        log.exception("a result could not be made")
        raise RunError(f"This result could not be made: {type(error).__name__}: {error}") from error


def refuse_changed_base(row: RunRow) -> None:
    """Raises RunError where the base model that a run's adapter belongs to is not the same any more."""
    base = BaseModel.from_dict(row.plan["model"])
    changed = changes(Path(base.path), base.files)
    if changed:
        raise RunError(
            f"The base model of {row.name} is not what it was trained on any more: {', '.join(changed)} in"
            f" {base.path}. Put the old files back; its result on other weights would be another model's."
        )


def _refuse_unended(row: RunRow) -> None:
    if row.active:
        raise RunError(f"{row.name} has not ended yet. Stop it to keep what it has learned so far.")


def _method(row: RunRow) -> Method[Any]:
    return method_named(row.settings["method"]["name"])


def _block(row: RunRow) -> Any:
    """The settings of its method."""
    return Settings.from_dict(row.settings).method


def _classes(row: RunRow) -> int:
    """How many classes a run has learned; 0 where it writes."""
    names = (row.plan.get("data") or {}).get("label_names")
    return len(names or ()) if row.settings["task"] == CLASSES else 0


def _saved_or_learned(row: RunRow) -> str:
    """What a run that has left nothing had not done: one that was cut off may have learned what was not saved."""
    return "saved" if row.state in CUT_OFF else "learned"


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_fresh(merged: Path, artifact: Path) -> bool:
    """Whether a merged model was made from the artifact as it is now."""
    if not (merged / "config.json").is_file():
        return False
    return merged == artifact or merged.stat().st_mtime >= artifact.stat().st_mtime


def _differing(before: Any, now: Any, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _to_be_made(row: RunRow, method: Method[Any]) -> Notice:
    how = "brought back" if method.artifact == "model" else "merged into its base model"
    return Notice(field="model", message=f"the result of {row.name} is {how} at Start.")


def _rounded_again(row: RunRow, settings: Settings) -> tuple[Notice, ...]:
    if settings.method.name != "qlora":
        return ()
    message = f"QLoRA rounds the result of {row.name} to 4 bits, so this run starts from a coarser copy of it."
    return (Notice(field="model", message=message),)


def _not_mergeable(row: RunRow, settings: Settings, method: Method[Any]) -> ModelError:
    """Why a result cannot be the base, and what would make it one."""
    reason = f"the result of {row.name} ({method.summary(_block(row))}) cannot be merged into its base model"
    if method.shapes_adapter is None:
        message = f"{reason}, and of its small network only what came out was saved, so it cannot be trained on either"
        return ModelError(f"{message}; choose a run of another method, such as lora", settings.model, "another run")
    before = _block(row)
    same = {name: getattr(before, name) for name in method.shapes_adapter}
    values = ", ".join(f"{name} {value!r}" for name, value in same.items())
    if settings.task != row.settings["task"]:
        fix = f"it can only be trained on as {row.settings['task']}"
    elif settings.method.name != method.name:
        fix = f"train it on with method {method.name} and {values}"
    else:
        differing = ", ".join(
            f"method.{name} to {same[name]!r}" for name in _differing(before, settings.method, tuple(same))
        )
        fix = f"it can be trained on as it is: set {differing}"
    return ModelError(f"{reason}; {fix}, or choose a run of another method, such as lora", settings.model, values)
