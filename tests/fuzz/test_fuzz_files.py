"""Mutated files through preview, plan and run: nothing unhandled, nothing silent.

A tier of its own: `python -m pytest tests/fuzz -k files --fuzz 500`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from files import FORMATS, Sample, samples
from oracle import missing, rows_of, same, texts

from support.tiny_jobs import run  # noqa: E402
from support.tiny_models import tiny_model, tiny_tokenizer  # noqa: E402
from tuning.core.errors import TuningError
from tuning.data import open_data
from tuning.data.files.table import Record
from tuning.plan.plan import plan_for
from tuning.settings.schema import Settings
from tuning.web.data import data_preview

KEPT = os.environ.get("FUZZ_KEEP")
"""A folder in which files that went wrong are kept."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model("llama", tmp_path_factory.mktemp("model"))
    tiny_tokenizer(folder, chat=True)
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_mutated_files_are_read_as_they_are_or_refused_in_words(
    form: str, model: Path, tmp_path: Path, fuzz: int, fuzz_seed: int
) -> None:
    wrong, outcomes = list[str](), dict[str, int]()
    for i, sample in enumerate(samples(form, fuzz, fuzz_seed)):
        folder = tmp_path / str(i)
        folder.mkdir()
        path = folder / sample.name
        path.write_bytes(sample.content)
        draw = random.Random(i)
        settings = {
            "model": str(model),
            "task": draw.choice(("causal_lm", "causal_lm", "sequence_classification")),
            "data": {
                "source": str(path),
                "bad_rows": draw.choice(("stop", "skip")),
                "eval_fraction": 0.25,
                "max_seq_length": 32,
            },
            "method": {"name": "full"},
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "max_steps": 1,
            "optimizer": {"learning_rate": 1e-3},
            "device": "cpu",
        }
        try:
            outcome, faults = went(settings, sample, path, folder)
        except Exception as error:  # a person would see a traceback
            outcome, faults = "unhandled", [f"unhandled {type(error).__name__}: {error}"[:300]]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        wrong += [f"{form} {i} ({sample.changes}; {settings['task']}): {fault}" for fault in faults]
        if faults and KEPT:
            shutil.copy(path, Path(KEPT) / f"{form}-{i}-{sample.name}")
        shutil.rmtree(folder)
    print(form, outcomes)
    assert not wrong, f"{len(wrong)} of {fuzz} files: {outcomes}\n" + "\n".join(wrong)


def went(settings: dict[str, Any], sample: Sample, path: Path, folder: Path) -> tuple[str, list[str]]:
    """What became of a file, and what is wrong with that."""
    try:
        json.dumps(data_preview(settings)).encode()
        shown = True
    except TuningError:
        shown = False
    try:
        plan = plan_for(settings)
    except TuningError as error:
        assert error.problems and all(problem.message and problem.field for problem in error.problems)
        json.dumps([problem.to_dict() for problem in error.problems], default=str).encode()
        return "refused", []
    if not shown:
        return "trained", ["the preview refuses what the plan takes"]
    faults = silent(settings, sample, path, folder, plan)
    from tuning.training.job import Job

    end, events = run(Job(run_id="r", attempt=1, plan=plan, folder=str(folder / "run")))
    if end == "failed":
        failed = events[-1].data
        if failed.get("traceback"):
            faults.append(f"the run broke off: {failed['message']}")
        return "failed", faults
    return "trained", faults


def silent(settings: dict[str, Any], sample: Sample, path: Path, folder: Path, plan: Any) -> list[str]:
    """What the plan takes otherwise than the plain library, without a word."""
    theirs = rows_of(path, sample.format, sample.delimiter, folder / "cache")
    given = Settings.from_dict(settings | {"data": settings["data"] | {"bad_rows": "skip"}})
    data = open_data(given.data, given.task, given.seed)
    messages = " ".join(notice.message for notice in plan.notices)
    table, bad = data.train.table, sum(check.bad_count for check in data.checks)
    records = list(table.read(range(len(table))))
    if theirs is None:
        return []  # nothing to hold it against; the preview at least says what is read
    faults = []
    if len(records) != len(theirs) and not messages:
        faults.append(f"{len(records)} rows here, {len(theirs)} by datasets, and nothing told")
    if len(data.train) + len(data.eval) + bad != len(records):
        faults.append(f"{len(records)} rows, but {len(data.train)} + {len(data.eval)} used and {bad} bad")
    for i, row in [*zip(data.train.indices, data.train), *zip(data.eval.indices, data.eval)]:
        record = records[i]
        if not isinstance(record, Record) or len(records) != len(theirs):
            continue
        other = theirs[i]
        for name, value in record.values.items():
            if not same(value, other.get(name), sample.format) and name not in messages:
                faults.append(f"{name} is {value!r:.60} here and {other.get(name)!r:.60} by datasets")
        used = " ".join(texts(asdict(row)))
        for role, column in dict(data.schema.columns).items():
            lacks = missing(other.get(column)) and not same("", other.get(column), "text")
            if lacks and role in ("text", "prompt", "completion", "label", "messages"):
                faults.append(f"{role} comes from {column}, which has no value in this row: {used!r:.60}")
    roles = " ".join(dict(data.schema.columns).values()) + (data.schema.prompt_template or "")
    for name in dict.fromkeys(name for other in theirs for name, value in other.items() if not missing(value)):
        if name not in roles and name not in messages:
            faults.append(f"column {name!r} is not used, and that is not told")
    return list(dict.fromkeys(faults))[:4]
