"""The form says exactly what the settings say: there and back, faults at their fields, the memory bar's words."""

from __future__ import annotations

from typing import Any

import pytest

from tuning import charts
from tuning.errors import SettingsError
from tuning.methods import METHODS
from tuning.settings import Settings

form = pytest.importorskip("tuning.ui.values")
preview = pytest.importorskip("tuning.ui.preview")

CASES: list[dict[str, Any]] = [
    {},
    {
        "num_epochs": 2.5,
        "method": {"name": "full"},
        "optimizer": {"name": "sgd", "momentum": 0.9, "betas": [0.8, 0.99]},
    },
    {"data": {"columns": {"text": "body"}, "label_names": ["no", "yes"], "train_rows": 7}, "eval": {"every": None}},
    {"recipe": {"name": "r_tuning", "form": "certainty", "threshold": 0.25}},
    {"optimizer": {"learning_rate": 0.00012345678, "max_grad_norm": None}, "sample": {"prompts": ["a", "b, c"]}},
]


@pytest.mark.parametrize("given", CASES)
def test_settings_come_back_from_the_form_as_they_went_in(given: dict[str, Any]) -> None:
    settings = Settings.from_dict(given)
    values = form.values_from_settings(settings.to_dict())
    assert Settings.from_dict(form.settings_from_values(values)) == settings


def test_every_method_has_its_block_in_the_form() -> None:
    for method in METHODS:
        values = form.values_from_settings(Settings.from_dict({"method": {"name": method.name}}).to_dict())
        assert form.settings_from_values(values)["method"]["name"] == method.name


def test_what_cannot_be_read_is_refused_at_its_field() -> None:
    values = form.first_values() | {"optimizer.learning_rate": "abc", "method.lora.r": "-1", "data.columns": "{oops"}
    values |= {"recipe.name": "r_tuning", "recipe.r_tuning.threshold": "2"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict(form.settings_from_values(values))
    told = preview.problems_at_fields(caught.value, "lora")
    ids = {problem["id"] for problem in told["problems"]}
    assert ids == {"f-optimizer-learning_rate", "f-method-lora-r", "f-data-columns", "f-recipe-r_tuning-threshold"}


@pytest.mark.parametrize(("limit", "verdict"), [(1e9, "fits"), (130.0, "tight"), (50.0, "over")])
def test_the_bar_says_whether_it_fits(limit: float, verdict: str) -> None:
    estimate = {
        "parts": {"weights": 60, "gradients": 1, "activations": 39, "logits": 0},
        "total_bytes": 100,
        "low_bytes": 110,
        "process_bytes": 120,
        "high_bytes": 140,
        "device_bytes": limit,
        "fits": limit >= 140,
        "kind": "approximate",
        "peak_at": "loss",
        "device": "a device",
        "fixes": [],
        "evaluation_bytes": 90,
        "generation_bytes": 0,
        "why_approximate": None,
    }
    bar = charts.memory_bar(estimate)
    assert bar["verdict"] == verdict
    assert [part["name"] for part in bar["parts"]] == ["weights", "gradients", "activations"] + (
        [charts.REST["cpu"]] if limit < 1e3 else []
    )
    near = limit < 1e3
    assert bar["limit_words"] == (f"limit of a device: {charts.size_text(limit)}" if near else "")
    assert bar["right"] == (charts.size_text(bar["scale"]) if near else "100 B at the peak"), "the axis tells its end"
    assert ("110 B to 140 B" in bar["band_words"]) == near
    card = charts.memory_bar(estimate | {"why_approximate": "no layers are named."}, "cuda")
    assert not near or card["parts"][-1]["name"] == "CUDA context and libraries"
    assert card["note"].endswith("Approximate, with a wider band: no layers are named.")
    assert bar["note"].endswith("The estimate is approximate.")
    assert bar["total"] <= bar["scale"]


def test_prompts_with_line_breaks_survive_the_form() -> None:
    prompts = ["The film was dull.\nOverall:", "a\\nb", "back\\slash", "x\n\ny"]
    plain = Settings.from_dict({"sample": {"prompts": prompts}}).to_dict()
    assert form.settings_from_values(form.values_from_settings(plain))["sample"]["prompts"] == prompts
