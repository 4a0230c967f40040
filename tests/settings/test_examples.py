"""The settings files of assets/examples: each is what it says, can be planned and estimated, and runs offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuning.cli import main
from tuning.core.hardware import named_device
from tuning.memory.estimate import estimate
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for
from tuning.settings.schema import Settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "assets" / "examples").glob("*.json"))
QUICKEST = ROOT / "assets" / "examples" / "features-two-cores.json"


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_there_are_five_and_the_first_document_names_each() -> None:
    text = (ROOT / "assets" / "docs" / "first-run.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 5
    assert [file.name for file in EXAMPLES if f"(../examples/{file.name})" not in text] == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_of_this_version_and_keeps_its_values(file: Path) -> None:
    given = read(file)
    whole = Settings.from_dict(given).to_dict()
    assert given["version"] == whole["version"], "a file of an older version would be read with another meaning"

    def check_kept(part: dict[str, Any], of: dict[str, Any]) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                check_kept(value, of[key])
            else:
                assert of[key] == value, key

    check_kept(given, whole)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_planned_and_estimated_on_a_small_card(file: Path) -> None:
    plan = plan_for(read(file))
    figures = estimate(usage_of(plan, named_device("T4 16 GB")))
    assert figures.fits and sum(figures.parts.values()) == figures.total_bytes > 0
    assert plan.model.spec == "tiny-town", "it runs without a network"


def test_the_quickest_example_trains_two_updates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = read(QUICKEST) | {"num_epochs": None, "max_steps": 2}
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert main(["run", str(tmp_path / "settings.json"), "--out", str(tmp_path / "out")]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events if event["kind"] == "step"] == [1, 2]
    assert events[-1]["kind"] == "finished"
    assert (tmp_path / "out" / "adapter").is_dir()
