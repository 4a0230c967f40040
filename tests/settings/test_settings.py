"""Settings: strict, complete, all problems at once, and nothing but the documented error whatever comes in."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuning.core.errors import SettingsError, TuningError
from tuning.methods import METHODS
from tuning.methods.lora import LoraSettings
from tuning.settings.schema import Settings, all_fields
from tuning.settings.table import settings_table

ROOT = Path(__file__).resolve().parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = sorted({path.split(".")[0] for path in all_fields()} | {"method", "data", "optimizer"})
INNER = sorted({path.split(".")[-1] for path in all_fields()})


def test_defaults_are_the_documented_ones() -> None:
    plain = Settings.from_dict({}).to_dict()
    assert plain["micro_batch_size"] == 4 and plain["gradient_accumulation_steps"] == 8
    assert plain["method"] == {
        "name": "lora",
        "r": 8,
        "alpha": 16,
        "dropout": 0.0,
        "target_modules": "all-linear",
        "rslora": False,
        "dora": False,
        "init": "default",
    }
    assert Settings.from_dict(plain) == Settings.from_dict({})


def test_all_problems_at_once_with_field_value_and_limit() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_dict({"micro_batch_size": 0, "optimizer": {"learning_rate": "abc"}, "method": {"r": -1}, "x": 1})
    by_field = {problem.field: problem for problem in caught.value.problems}
    assert set(by_field) == {"micro_batch_size", "optimizer.learning_rate", "method.r", "x"}
    assert by_field["micro_batch_size"].value == 0 and by_field["micro_batch_size"].limit == "1 to 4096"
    assert "abc" in by_field["optimizer.learning_rate"].message


def test_steps_and_epochs_set_each_other_aside() -> None:
    assert Settings.from_dict({"num_epochs": 2}).max_steps is None
    assert Settings.from_dict({"max_steps": 5}).num_epochs is None
    with pytest.raises(SettingsError, match="not both"):
        Settings.from_dict({"max_steps": 5, "num_epochs": 2})
    with pytest.raises(SettingsError, match="how long"):
        Settings.from_dict({"max_steps": None})


def test_a_whole_number_is_a_number_but_true_is_not() -> None:
    assert Settings.from_dict({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate == 1.0
    whole = Settings.from_dict({"max_steps": 1e3}).max_steps
    assert whole == 1000 and type(whole) is int, "as JSON may write it"
    for wrong in (True, "4", 4.5, 1e300, None):
        with pytest.raises(SettingsError):
            Settings.from_dict({"micro_batch_size": wrong})


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(INNER), JSON), max_size=6) | JSON)
def test_anything_gives_settings_or_the_documented_error(wild: object) -> None:
    try:
        result = Settings.from_dict(wild)
    except TuningError as error:
        assert error.problems and all(problem.message for problem in error.problems)
    else:
        assert Settings.from_dict(result.to_dict()) == result


def test_every_setting_has_help_and_stands_in_the_document_of_settings() -> None:
    for method in METHODS:
        silent = [path for path, field in all_fields(method.name).items() if not field.help and path != "method.name"]
        assert not silent, silent
    assert settings_table() in (ROOT / "assets" / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_command_line_refuses_with_code_2_and_no_traceback() -> None:
    wild = '{"micro_batch_size": "many", "model": 3}'
    done = subprocess.run(
        [sys.executable, "-m", "tuning", "estimate", "-"], cwd=ROOT, input=wild, capture_output=True, text=True
    )
    assert done.returncode == 2 and '"problems"' in done.stdout and '"field": "model"' in done.stdout
    assert "Traceback" not in done.stderr and "many" in done.stderr


def test_settings_cross_to_another_process_unchanged() -> None:
    settings = Settings.from_dict({"method": {"name": "qlora", "r": 4}, "data": {"label_names": ["a", "b"]}})
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings and again.to_dict() == settings.to_dict() and type(again.method) is type(settings.method)
    assert hash(again.method) == hash(settings.method), "counts are remembered by a method's settings"


def test_a_changed_copy_refuses_a_name_that_no_field_has() -> None:
    usual = Settings()
    assert usual.replace(max_steps=7).max_steps == 7 and usual.max_steps == 100
    with pytest.raises(TypeError, match="learning_rat"):
        usual.optimizer.replace(learning_rat=0.1)


@pytest.mark.parametrize("wrong", [{"r": "8"}, {"r": True}, {"r": 0}, {"alpha": float("nan")}, {"rank": 8}])
def test_a_block_by_itself_is_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Settings().micro_batch_size = 8  # type: ignore[misc]
