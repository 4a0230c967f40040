"""The form says exactly what the settings say: there and back, faults at their fields, the memory bar's words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuning.core.errors import SettingsError
from tuning.core.quantities import size_text
from tuning.memory.estimate import MemoryEstimate
from tuning.methods import METHODS
from tuning.settings.schema import Settings
from tuning.ui import memory_bar as charts

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
    {"data": {"packing": True, "long_text": "cut", "row_choice": "first", "separator": " ", "chat_template": "off"}},
    {"data": {"packing": False, "separator": "", "special_tokens": "config"}, "precision": "autocast_bf16"},
    {"data": {"separator": "\n\n", "system_prompt": '"quoted "', "columns": {"text": " name with blanks "}}},
    {"data": {"separator": '" "', "system_prompt": "two\r\nlines", "text_template": "{a}\n{b} "}},
    {"data": {"label_names": ["good ", "good", "", "C:\\new", '"so "', "two\nlines"], "columns": {"text": "größe"}}},
    {"sample": {"prompts": [" begins with a blank", "ends with one ", "a\r\nb", '"in quotes"', "\ttab"]}},
    {"micro_batch_size": 100, "gradient_accumulation_steps": 4096},
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
    answer = preview.problems_at_fields(caught.value, "lora")
    ids = {problem["id"] for problem in answer["problems"]}
    assert ids == {"f-optimizer-learning_rate", "f-method-lora-r", "f-data-columns", "f-recipe-r_tuning-threshold"}


@pytest.mark.parametrize(("limit", "verdict"), [(10**9, "fits"), (130, "tight"), (50, "over")])
def test_the_bar_says_whether_it_fits(limit: int, verdict: str) -> None:
    estimate = MemoryEstimate(
        parts={"weights": 60, "gradients": 1, "activations": 39, "logits": 0},
        total_bytes=100,
        low_bytes=110,
        process_bytes=120,
        high_bytes=140,
        device_bytes=limit,
        fits=limit >= 140,
        kind="approximate",
        peak_at="backward of layer 6",
        device="a device",
        device_lacks=None,
        fixes=[],
        evaluation_bytes=90,
        generation_bytes=0,
        why_approximate=None,
        batches="4 rows of 8 tokens",
        trainable_parameters=1,
        total_parameters=60,
        largest_micro_batch=None,
    )
    bar = charts.memory_bar(estimate)
    assert bar["verdict"] == verdict
    assert [part["name"] for part in bar["parts"]] == ["weights", "gradients", "activations"] + (
        [charts.REST["cpu"]] if limit < 1e3 else []
    )
    near = limit < 1e3
    assert bar["limit_words"] == (f"limit of a device: {size_text(limit)}" if near else "")
    assert bar["right"] == (size_text(bar["scale"]) if near else "100 B at the peak"), "the axis tells its end"
    assert ("110 B to 140 B" in bar["band_words"]) == near
    card = charts.memory_bar(replace(estimate, why_approximate="no layers are named."), "cuda")
    assert not near or card["parts"][-1]["name"] == "CUDA context and libraries"
    assert "The estimate is approximate, with a wider band: no layers are named." in card["note"]
    assert bar["note"].startswith("The process needs 110 B to 140 B")
    assert "100 B at the peak, in the backward pass of layer 6; the rest is Python and libraries." in bar["note"]
    assert bar["note"].endswith("The estimate is approximate. It is for 4 rows of 8 tokens.")
    assert bar["total"] <= bar["scale"]


def test_prompts_with_line_breaks_survive_the_form() -> None:
    prompts = ["The film was dull.\nOverall:", "a\\nb", "back\\slash", "x\n\ny"]
    plain = Settings.from_dict({"sample": {"prompts": prompts}}).to_dict()
    assert form.settings_from_values(form.values_from_settings(plain))["sample"]["prompts"] == prompts


ONE, MANY = "micro_batch_size", "optimizer.learning_rate"


@pytest.mark.parametrize(
    ("path", "typed", "value"),
    [
        (ONE, "100", 100),
        (ONE, " 1e3", 1000),
        (ONE, "16.0", 16),
        (ONE, "+5", 5),
        (MANY, "1e-3", 0.001),
        (MANY, ".5", 0.5),
        (MANY, "5.", 5.0),
        (MANY, "", None),
        ("eval.every", " ", None),
        ("optimizer.betas", "0.8, 0.99", (0.8, 0.99)),
    ],
)
def test_a_number_is_read_as_it_was_typed(path: str, typed: str, value: Any) -> None:
    settings = Settings.from_dict(form.settings_from_values(form.first_values() | {path: typed}))
    read: Any = settings
    for part in path.split("."):
        read = getattr(read, part)
    assert read == value


NOT_READ = [
    "8,5",
    "8\n16",
    "0x10",
    "-4",
    "1_000",
    "\uff18",
    "9" * 400,
    "9" * 5000,
    "1e999",
    "4.5",
    "nan",
    "Infinity",
    "4 4",
    "",
    " ",
]


@pytest.mark.parametrize("typed", NOT_READ)
@pytest.mark.parametrize("path", [ONE, "max_steps", "data.max_seq_length", "seed", "method.lora.r"])
def test_what_is_no_number_of_the_field_is_refused_there_as_it_was_typed(path: str, typed: str) -> None:
    values = form.first_values() | {path: typed}
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict(form.settings_from_values(values))
    answer = preview.problems_at_fields(caught.value, "lora", values[form.LENGTH])
    assert [problem["id"] for problem in answer["problems"]] == [f"f-{path.replace('.', '-')}"]
    assert answer["general"] == []
    shown = typed if typed.strip() else ""
    assert len(typed) > 20 or repr(shown)[1:-1] in answer["problems"][0]["message"] or typed in ("1e999", " ", "")
    json.dumps([problem.to_dict() for problem in caught.value.problems], allow_nan=False)


@pytest.mark.parametrize("typed", ["1e-400", "0.0000001e-400", "1_0", "\u0661", "0,001", "1e400", "1 000"])
def test_a_rate_that_a_number_cannot_hold_or_that_has_other_signs_is_refused(typed: str) -> None:
    for path in (MANY, "optimizer.weight_decay"):
        with pytest.raises(SettingsError) as caught:
            Settings.from_dict(form.settings_from_values(form.first_values() | {path: typed}))
        assert [problem.field for problem in caught.value.problems] == [path]


@pytest.mark.parametrize("typed", ["0.9,,0.999", "0,9, 0,999", "0.9", "0.9, 0x1", "0.9, 0.999,"])
def test_a_list_of_numbers_keeps_its_gaps_and_is_refused_for_them(typed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict(form.settings_from_values(form.first_values() | {"optimizer.betas": typed}))
    assert [problem.field for problem in caught.value.problems] == ["optimizer.betas"]


@pytest.mark.parametrize("typed", ["exact_match,,perplexity", "exact_match,", ",", "perplexity, exact"])
def test_a_list_of_names_keeps_its_gaps_and_is_refused_for_them(typed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict(form.settings_from_values(form.first_values() | {"eval.metrics": typed}))
    assert {problem.field for problem in caught.value.problems} == {"eval.metrics"}


def test_a_name_that_stands_twice_in_json_is_refused_with_the_reason() -> None:
    values = form.first_values() | {"data.columns": '{"text": "a", "text": "b"}'}
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict(form.settings_from_values(values))
    assert [problem.field for problem in caught.value.problems] == ["data.columns"]
    assert "duplicate name 'text'" in form.parsed_fields(values)["data.columns"].hint


@pytest.mark.parametrize(
    ("path", "typed", "value"),
    [
        ("data.system_prompt", " You are kind. ", " You are kind. "),
        ("data.separator", " ", " "),
        ("data.separator", '""', ""),
        ("data.separator", r'"\n"', "\n"),
        ("data.label_names", "good \nbad", ("good ", "bad")),
        ("sample.prompts", "Overall: \nNext", ("Overall: ", "Next")),
    ],
)
def test_blanks_at_the_ends_of_a_text_stay_and_are_reported(path: str, typed: str, value: Any) -> None:
    values = form.first_values() | {path: typed}
    block, name = path.split(".")
    assert getattr(getattr(Settings.from_dict(form.settings_from_values(values)), block), name) == value
    assert form.parsed_fields(values)[path].hint


def test_empty_lines_are_left_out_and_counted() -> None:
    values = form.first_values() | {"sample.prompts": "one\n\n  \ntwo\n", "data.label_names": 'a\n""\nb'}
    settings = Settings.from_dict(form.settings_from_values(values))
    assert settings.sample.prompts == ("one", "two")
    assert settings.data.label_names == ("a", "", "b"), "an empty text can be said"
    notices = preview.answer_or_problems(values, dict)["notices"]
    assert [(notice["field"], notice["count"], notice["id"]) for notice in notices] == [
        ("sample.prompts", 2, "f-sample-prompts")
    ]


def test_a_form_that_a_browser_kept_from_version_1_keeps_its_meaning() -> None:
    new = ("packing", "long_text", "row_choice", "separator", "chat_template", "special_tokens")
    stored = {path: value for path, value in form.first_values().items() if path.partition(".")[2] not in new}
    stored |= {"precision": "bf16", "eval.every": "", "micro_batch_size": 8, "method.full.gone": "x", "seed": "8,5"}
    stored["data.packing"] = True  # a tick box, then
    stored |= {"optimizer.learning_rate": "0.00"}
    values, notices = form.stored_values(stored)
    settings = form.settings_from_values(values)
    assert settings["precision"] == "autocast_bf16"
    assert settings["data"]["long_text"] == "cut" and settings["data"]["separator"] == " "
    assert settings["eval"]["every"] == 100_000
    assert values["data.packing"] == "true" and values["micro_batch_size"] == "8", (
        "as the components of today hold them"
    )
    assert values["seed"] == "8,5" and values["optimizer.learning_rate"] == "0.00", "what was typed stays"
    assert len(notices) == 1 and "version 1" in notices[0].message
    assert form.stored_values(values | {form.STORED_VERSION: 2}) == (values, ())


def test_what_is_counted_once_is_named_in_the_singular(tmp_path: Path) -> None:
    from tuning.runs.service import RunService

    rows = {"source": "reviews", "train_rows": 1, "eval_rows": 1}
    given = Settings.from_dict({"max_steps": 1, "data": rows}).to_dict()
    values = form.first_values() | form.values_from_settings(given)
    service = RunService(tmp_path)
    try:
        preview_json = preview.preview_value(service, values)
    finally:
        service.close()
    labels = [tile["label"] for tile in preview_json["tiles"]]
    assert "update per epoch" in labels and "update; run once to learn how long" in labels
    assert "its 1 update will" in preview_json["memory"]["note"]
    text = " ".join(
        [preview_json["memory"]["note"], *(f"{tile['label']} {tile['title']}" for tile in preview_json["tiles"])]
    )
    assert not re.search(r"\b1 (rows|updates|epochs)\b", text), text


def test_a_value_to_try_is_the_one_that_the_page_begins_with() -> None:
    """The settings' own defaults stay for files: 8 accumulation steps and 100 updates."""
    values = form.first_values() | {"gradient_accumulation_steps": "x", "max_steps": "0"}
    with pytest.raises(SettingsError) as refused:
        Settings.from_dict(form.settings_from_values(values))
    problems = preview.problems_at_fields(refused.value, "lora")["problems"]
    assert [problem["message"].partition("; ")[2] for problem in problems] == ["try 4.", "try 60."]
    assert [problem.message.partition("; ")[2] for problem in refused.value.problems] == ["try 8.", "try 100."]


def test_a_number_that_the_plan_works_out_is_shown_at_its_field(tmp_path: Path) -> None:
    from tuning.runs.service import RunService

    service = RunService(tmp_path)
    try:
        values = form.first_values() | {"eval.every": "", "data.packing": ""}
        hints = preview.preview_value(service, values)["hints"]
        plan = service.preview(form.settings_from_values(values)).plan
        typed = preview.preview_value(service, values | {"eval.every": "7"})["hints"]
    finally:
        service.close()
    every = plan.derived["eval_every"]
    assert hints["f-eval-every"] == f"Empty takes {every.value}: {every.origin}"
    assert hints["f-data-packing"] == f"Automatic: {plan.derived['packing'].origin}."
    assert "f-eval-every" not in typed
