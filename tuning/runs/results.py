"""What a run has left, as folders to hand on: as it was trained, merged into the base, or brought back after a crash;
and as the base model of a next run.

In: the store's row of a run that has ended. Out: a folder, a BaseModel. Torch is at work only in the executor's own
thread.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuning.core.errors import GoOn, ModelError, Notice, RunError, TuningError
from tuning.methods import method_named
from tuning.methods.base import Method
from tuning.models.base_model import BaseModel, open_folder
from tuning.models.file_digests import adapter_files, changes
from tuning.runs.executors.base import Executor, Task, Work
from tuning.runs.run_row import RunRow
from tuning.runs.store import RunStore
from tuning.settings.schema import Settings
from tuning.training.checkpoint_files import best_weights, checkpoint_step, newest_complete
from tuning.training.job import Job
from tuning.training.model_card import library_versions, model_card

log = logging.getLogger(__name__)

MAKE_SECONDS = 600.0
FORMS = ("trained", "best", "merged", "best-merged")
NO_EXECUTOR = "This result has to be made first, which takes the program that owns the runs."
CLASSES = "sequence_classification"
CUT_OFF = ("interrupted", "failed")
"""How a run ends that does not tell which of its weights are the best."""
UNSAVED = (*CUT_OFF, "cancelled")
"""How a run ends that may not have saved what its last attempt had learned; a checkpoint has it then."""


class Results:
    """The results of the runs of one home folder. Without an executor nothing can be made, only what is there read."""

    def __init__(self, home: Path, store: RunStore, executor: Executor | None = None) -> None:
        self._home, self._store, self._executor = home, store, executor
        self._making: dict[tuple[str, int, str], Task] = {}

    def folder(self, row: RunRow, form: str = "trained") -> Path:
        """The adapter's or model's folder, made now where it has to be. Raises RunError where there is none of that
        form."""
        found = self._found(row, form)
        return found if isinstance(found, Path) else self._between(found)

    def ready(self, row: RunRow, form: str = "trained") -> Path:
        """The same without making anything. Raises RunError where it would have to be made first."""
        found = self._found(row, form)
        if not isinstance(found, Path):
            message = f'The {form} result of {row.name} has to be made first: POST {{"form": "{form}"}} to results'
            raise RunError(f"{message} of the run, or choose it in the run's menu.")
        return found

    def make(self, row: RunRow, form: str) -> None:
        """Begin to make a form of the result, where it is not there and not being made. Raises RunError."""
        found = self._found(row, form)
        if isinstance(found, Path):
            return
        if self._executor is None:
            raise RunError(NO_EXECUTOR)
        key = (row.run_id, row.attempt, form)
        if key not in self._making or self._making[key].done.done():
            self._making[key] = self._executor.submit_task(found)

    def state(self, row: RunRow, form: str) -> dict[str, Any]:
        """{"state", "message"}: `ready`, `absent` (can be made), `making`, `failed`; `none` where there is no such.

        Where the method leaves a whole model there is no merged form beside it.
        """
        try:
            found = self._found(row, form)
        except RunError as error:
            return {"state": "none", "message": str(error)}
        if form.endswith("merged") and _method(row).artifact == "model":
            return {"state": "none", "message": "It is a whole model as it is."}
        if isinstance(found, Path):
            return {"state": "ready", "message": None}
        task = self._making.get((row.run_id, row.attempt, form))
        if task is None:
            return {"state": "absent", "message": None}
        if not task.done.done():
            return {"state": "making", "message": None}
        fault = None if task.done.cancelled() else task.done.exception()
        return {"state": "failed" if fault else "absent", "message": str(fault) if fault else None}

    def _found(self, row: RunRow, form: str) -> Path | Work:
        """The folder, or how to make it. Raises RunError where there is none of that form."""
        if form not in FORMS:
            raise RunError(f"A result is {', '.join(FORMS)}; there is no {form!r:.40}.")
        _refuse_unended(row)
        best = form.startswith("best")
        recovery = self._recovery(row)
        artifact = self._artifact(row, best=best)
        if not form.endswith("merged") or artifact.name == "model":
            return artifact if recovery is None else recovery
        merge, place = self._merge(row, best=best), artifact.parent / "merged"
        if recovery is None:
            return place if _is_fresh(place, artifact) else merge

        def both(should_continue: GoOn, held: bool) -> Path:
            recovery(should_continue, held)
            return merge(should_continue, held)

        return both

    # -- as the base of a next run ---------------------------------------------------------------------------------
    def model(self, settings: Settings) -> BaseModel:
        """A run's result as the base of the next, whose `model` is run:ID, or run:ID/best for its best weights.

        It is the merged model, or the base model with the adapter to train on where nothing can be merged. What has
        to be made first (`make_base`) is told in its notices, and until then the shape is worked out. Never the bare
        base model. Raises ModelError.
        """
        row, best = self._named(settings.model)
        method, base = _method(row), BaseModel.from_dict(row.plan["model"])
        self._check_base(row, settings, method, base)
        artifact, title = self._artifact(row, best=best), f"the {'best' if best else 'result'} of {row.name}"
        said: dict[str, Any] = {"spec": settings.model, "source": "run", "title": title, "parent": base}
        said["learned_head"] = settings.task == row.settings["task"] == CLASSES
        if self._trains_on(row, settings, method):
            return self._adapter_to_train_on(row, base, artifact, said)
        shape = method.merged_shape(base.shape, _block(row), _classes(row))
        if shape is None:
            raise _not_mergeable(row, settings, method)
        place = artifact if artifact.name == "model" else artifact.parent / "merged"
        if _is_fresh(place, artifact) and not self._outdated(row):
            found = replace(open_folder(place, settings.model, "run", title), parent=base)
        else:
            found = replace(
                base,
                **said,
                shape=shape,
                revision=None,
                files={},
                notices=(*base.notices, _to_be_made(row, method)),
            )
        told = _rounded_again(row, settings)
        return replace(found, notices=(*found.notices, *told))

    def own_base(self, settings: Settings) -> BaseModel:
        """The base model that the run was trained from. Raises ModelError."""
        row, _ = self._named(settings.model)
        return BaseModel.from_dict(row.plan["model"])

    def make_base(self, settings: Settings) -> None:
        """Make what `model` stands for: the merged model, an interrupted run's result. Raises ModelError."""
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
        """Raises ModelError where this run cannot be trained on at all."""
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
        if not self._left_something(row):
            message = f"{row.name} ended before anything was learned, so there is nothing to train on from"
            raise ModelError(message, spec, "a run with a result")
        try:
            self._artifact(row, best=spec.endswith("/best"))
            refuse_changed_base(row)
        except RunError as error:
            raise ModelError(str(error), spec, "a run whose result is whole") from None

    def _trains_on(self, row: RunRow, settings: Settings, method: Method[Any]) -> bool:
        """Whether the adapter itself is trained on, on the base model it belongs to."""
        if (
            method.shapes_adapter is None
            or settings.method.name != method.name
            or settings.task != row.settings["task"]
        ):
            return False
        return not _differing(_block(row), settings.method, method.shapes_adapter)

    def _adapter_to_train_on(self, row: RunRow, base: BaseModel, artifact: Path, said: dict[str, Any]) -> BaseModel:
        there = artifact.is_dir() and not self._outdated(row)
        message = f"training goes on with the adapter of {row.name}, which is not merged into its base model"
        if not there:
            message += "; it is brought back from the last checkpoint at Start"
        told = Notice(field="model", message=f"{message}.")
        files = adapter_files(artifact) if there else {}
        return replace(base, **said, adapter=str(artifact), adapter_files=files, notices=(*base.notices, told))

    # -- folders ---------------------------------------------------------------------------------------------------
    def _place(self, row: RunRow) -> Path:
        return self._home / "runs" / row.run_id

    def _artifact(self, row: RunRow, *, best: bool) -> Path:
        """Where the result is or will be; of the best weights only where they were kept apart from the last."""
        place, name = self._place(row), _method(row).artifact
        if not best:
            return place / name
        ends = self._store.events(row.run_id, row.state)
        end = ends[-1].data if ends else {}
        told = end.get("best")
        if told is not None:  # the end of this attempt: what one before it has left apart is not its best
            if told["step"] == end.get("kept_step", end.get("step")):  # the last weights were the best
                return place / name
            apart = place / "best" / name
            if apart.is_dir():
                return apart
            why = f"those of update {told['step']:,} are gone from its folder"
        elif row.state in CUT_OFF:
            why = "it was cut off, let it go on first"
        else:
            why = "no evaluation told which they are"
        raise RunError(f"{row.name} has no best weights: {why}; or take the last ones.")

    def _left_something(self, row: RunRow) -> bool:
        place = self._place(row)
        if _has_files(place / _method(row).artifact):
            return True
        # the best weights of a run that was cut off may be those it began with
        return row.state in UNSAVED and (self.checkpoint(row) is not None or (best_weights(place) or (0, 0.0))[0] > 0)

    def checkpoint(self, row: RunRow) -> int | None:
        """The update behind which its newest whole checkpoint was written; None where there is none."""
        newest = newest_complete(self._place(row))
        return checkpoint_step(newest) if newest is not None else None

    def goes_on_from(self, row: RunRow) -> int | None:
        """The update that a run would go on from, 0 where it would begin anew; None where it cannot go on."""
        step = self.checkpoint(row)
        if row.state in ("cancelled", "interrupted") or (row.state == "failed" and step is not None):
            return step or 0
        return None

    def _outdated(self, row: RunRow) -> bool:
        """Whether the result in the folder is of an attempt before the one that was cut off."""
        artifact, newest = self._place(row) / _method(row).artifact, newest_complete(self._place(row))
        if row.state not in UNSAVED or newest is None or not artifact.is_dir():
            return False
        return newest.stat().st_mtime > artifact.stat().st_mtime

    def _recovery(self, row: RunRow) -> Callable[[GoOn, bool], Path] | None:
        """How to bring back the result of a run that was cut off; None where it is there. Raises RunError."""
        folder, method = self._place(row) / _method(row).artifact, _method(row)
        if _has_files(folder) and not self._outdated(row):
            return None
        if not method.updates:
            raise RunError(f"{row.name} trained nothing ({method.title}), so it has nothing to download.")
        if not self._left_something(row):
            raise RunError(f"{row.name} has left nothing to download: it ended before anything was learned.")
        refuse_changed_base(row)
        job = self._job(row)

        def bring_back(should_continue: GoOn, held: bool) -> Path:
            from tuning.training.merge import recovered_artifact

            return _told(lambda: recovered_artifact(job, self._card(row, job), should_continue))

        return bring_back

    def _merge(self, row: RunRow, *, best: bool) -> Callable[[GoOn, bool], Path]:
        """How to make the merged model of the last or the best weights. Raises RunError."""
        job, method = self._job(row), _method(row)
        shape = method.merged_shape(job.plan.model.shape, job.plan.settings.method, job.plan.labels)
        if shape is None:
            raise RunError(f"{method.title} cannot be merged into the base model; download it as it was trained.")
        refuse_changed_base(row)

        def merge(should_continue: GoOn, held: bool) -> Path:
            from tuning.training.merge import merged_folder

            return _told(
                lambda: merged_folder(
                    job, self._card(row, job, merged=True), best=best, should_continue=should_continue
                )
            )

        return merge

    def _card(self, row: RunRow, job: Job, *, merged: bool = False) -> str:
        evals = [event.data for event in self._store.events(row.run_id, "eval")]
        end = {"state": row.state, "step": row.step, "seconds": row.seconds}
        return model_card(job.plan, evals, end, library_versions(), merged=merged)

    def _between(self, work: Work) -> Path:
        if self._executor is None:
            raise RunError(NO_EXECUTOR)
        return self._executor.run_between_updates(work, timeout=MAKE_SECONDS)

    def _job(self, row: RunRow) -> Job:
        place = self._place(row)
        try:
            plain: dict[str, Any] = json.loads((place / "job.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise RunError(f"job.json of {row.name} is gone, so its result cannot be made again.") from None
        return Job.from_dict({**plain, "folder": str(place)})


def _told(make: Callable[[], Path]) -> Path:
    """What is made; a full disk or too little memory as a sentence, for who asked for it."""
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


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_fresh(place: Path, artifact: Path) -> bool:
    """Whether a merged model was made from the result as it is now."""
    if not (place / "config.json").is_file():
        return False
    return place == artifact or place.stat().st_mtime >= artifact.stat().st_mtime


def _differing(before: Any, now: Any, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _to_be_made(row: RunRow, method: Method[Any]) -> Notice:
    how = "brought back from its last checkpoint" if method.artifact == "model" else "merged into its base model"
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
    wanted = ", ".join(f"{name} {value!r}" for name, value in same.items())
    if settings.task != row.settings["task"]:
        fix = f"it can only be trained on as {row.settings['task']}"
    elif settings.method.name != method.name:
        fix = f"train it on with method {method.name} and {wanted}"
    else:
        differing = ", ".join(
            f"method.{name} to {same[name]!r}" for name in _differing(before, settings.method, tuple(same))
        )
        fix = f"it can be trained on as it is: set {differing}"
    return ModelError(f"{reason}; {fix}, or choose a run of another method, such as lora", settings.model, wanted)
