"""Opened inputs: a plan is made from them alone, and what was opened before is given again while nothing changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuning.core.errors import SettingsError
from tuning.core.hardware import named_device
from tuning.plan.checks import check, measure_prompts
from tuning.plan.inputs import open_inputs
from tuning.plan.plan import make_plan, plan_for


def questions(file: Path, count: int = 12) -> Path:
    rows = ({"prompt": f"What is {n} and one?", "completion": f" It is {n + 1}."} for n in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def settings_of(file: Path, **more: Any) -> dict[str, Any]:
    return {"data": {"source": str(file), "eval_fraction": 0.5}, "max_steps": 2} | more


@pytest.mark.parametrize(
    "more",
    [
        {"eval": {"metrics": ["exact_match"]}, "sample": {"prompts": ["What is one?"]}},
        {"method": {"name": "prompt_engineering", "shots": 2}},
    ],
)
def test_a_plan_is_made_from_opened_inputs_when_the_file_is_gone(tmp_path: Path, more: dict[str, Any]) -> None:
    file = questions(tmp_path / "rows.jsonl")
    planned, inputs = plan_for(settings_of(file, **more)), open_inputs(settings_of(file, **more))
    file.unlink()
    assert make_plan(replace(inputs, device=planned.device)) == planned


def test_settings_that_change_no_row_share_one_opened_data_set(tmp_path: Path) -> None:
    file = questions(tmp_path / "rows.jsonl")
    first = open_inputs(settings_of(file))
    shorter = open_inputs({"data": {"source": str(file), "eval_fraction": 0.5, "max_seq_length": 12}, "max_steps": 2})
    assert shorter.data is first.data and shorter.summary != first.summary
    assert open_inputs(settings_of(file, max_steps=5)).summary is first.summary
    questions(file, 20)
    changed = open_inputs(settings_of(file))
    assert changed.data is not first.data and changed.summary.train_rows == 10


def test_checks_are_functions_of_the_inputs(tmp_path: Path) -> None:
    inputs = open_inputs(settings_of(questions(tmp_path / "rows.jsonl"), precision="autocast_bf16"))
    assert check(inputs) == []
    old = replace(inputs, device=named_device("T4 16 GB"))
    assert [problem.field for problem in check(old)] == ["precision"]
    with pytest.raises(SettingsError, match="does not compute in bf16"):
        make_plan(old)


def test_prompts_are_measured_before_the_checks_and_not_by_them(tmp_path: Path) -> None:
    method = {"name": "prompt_engineering", "shots": 2}
    inputs = open_inputs(settings_of(questions(tmp_path / "rows.jsonl"), method=method))
    prompts = measure_prompts(inputs, inputs.settings.method)
    assert prompts is not None and prompts.rows == 6 and prompts.row > prompts.prompt > 0
    assert check(inputs, prompts) == []
    too_long = replace(prompts, row=inputs.model.shape.max_positions + 1)
    assert [problem.field for problem in check(inputs, too_long)] == ["method.shots"]
    trains = open_inputs(settings_of(tmp_path / "rows.jsonl"))
    assert measure_prompts(trains, trains.settings.method) is None
