"""What a run has left, as folders to hand on: as it was trained, merged into the base, or brought back after a crash.

In: the store's row of a run that has ended. Out: a folder. Torch is at work only in the executor's own thread.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuning.card import library_versions, model_card
from tuning.errors import ModelError, RunError
from tuning.executors.base import Executor
from tuning.job import Job
from tuning.methods import method_named
from tuning.models import BaseModel
from tuning.rows import RunRow
from tuning.store import RunStore

MAKE_SECONDS = 600.0
FORMS = ("trained", "best", "merged")


class Results:
    """The results of the runs of one home folder."""

    def __init__(self, home: Path, store: RunStore, executor: Executor) -> None:
        self._home, self._store, self._executor = home, store, executor

    def folder(self, row: RunRow, form: str = "trained") -> Path:
        """The adapter's or model's folder. Raises RunError where there is none of that form."""
        if form not in FORMS:
            raise RunError(f"A result is {', '.join(FORMS)}; there is no {form!r:.40}.")
        if row.active:
            raise RunError(f"{row.name} has not ended yet. Stop it to keep what it has learned so far.")
        trained = self._trained(row)
        if form == "trained":
            return trained
        if form == "best":
            best = trained.parent / "best" / trained.name
            return best if best.is_dir() else trained  # the last weights were the best
        return self._merged(row)

    def model(self, run_id: str, task: str) -> BaseModel:
        """A run's result as the base of the next. Until it is merged (`make_base`) it stands for its own base's
        shape, which is the same. Raises ModelError."""
        spec = f"run:{run_id}"
        row = self._row(run_id)
        if row.active:
            raise ModelError(f"{row.name} has not ended yet; stop it or wait for it", spec, "a run that has ended")
        if row.settings["task"] != task and row.settings["task"] != "causal_lm":
            message = f"{row.name} has learned classes and cannot write any more; use it for {row.settings['task']}"
            raise ModelError(message, spec, row.settings["task"])
        parent = BaseModel.from_dict(row.plan["model"])
        folder = self._home / "runs" / run_id / self._base_form(row)
        path = str(folder) if (folder / "config.json").is_file() else parent.path
        return replace(parent, spec=spec, source="run", path=path, title=f"the result of {row.name}", revision=None)

    def make_base(self, settings: Any) -> None:
        """Merge the run that these settings start from, where they do. Raises ModelError."""
        spec = settings.get("model") if isinstance(settings, dict) else None
        if not isinstance(spec, str) or not spec.startswith("run:"):
            return
        row = self._row(spec.removeprefix("run:"))
        try:
            self.folder(row, "trained" if self._base_form(row) == "model" else "merged")
        except RunError as error:
            raise ModelError(str(error), spec, "a run with a result") from None

    def _row(self, run_id: str) -> RunRow:
        try:
            return self._store.run(run_id)
        except RunError as error:
            raise ModelError(str(error), f"run:{run_id}", "a run of this home folder") from None

    @staticmethod
    def _base_form(row: RunRow) -> str:
        artifact = method_named(row.settings["method"]["name"]).artifact
        return artifact if artifact == "model" else "merged"

    def _trained(self, row: RunRow) -> Path:
        place = self._home / "runs" / row.run_id
        folder = place / method_named(row.settings["method"]["name"]).artifact
        if folder.is_dir() and any(folder.iterdir()):
            return folder
        if row.state != "interrupted":
            raise RunError(f"{row.name} has left nothing to download: it ended before anything was learned.")
        job = self._job(row)

        def bring_back() -> Path:
            from tuning.training.results import recovered_artifact

            evals = [event.data for event in self._store.events(row.run_id, "eval")]
            end = {"state": row.state, "step": row.step, "seconds": row.seconds}
            return recovered_artifact(job, model_card(job.plan, evals, end, library_versions()))

        return self._executor.between(bring_back, timeout=MAKE_SECONDS)

    def _merged(self, row: RunRow) -> Path:
        job = self._job(row)

        def merge() -> Path:
            from tuning.training.results import merged_folder

            return merged_folder(job)

        return self._executor.between(merge, timeout=MAKE_SECONDS)

    def _job(self, row: RunRow) -> Job:
        place = self._home / "runs" / row.run_id
        try:
            plain: dict[str, Any] = json.loads((place / "job.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise RunError(f"job.json of {row.name} is gone, so its result cannot be made again.") from None
        return Job.from_dict({**plain, "folder": str(place)})
