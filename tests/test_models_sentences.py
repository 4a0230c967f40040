"""What is said of a model that a config.json describes and that cannot be built, or cannot compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model

from tuning.errors import ModelError, SettingsError
from tuning.models import open_folder
from tuning.plan import plan_for
from tuning.weights import compared


def folder_with(folder: Path, **changes: Any) -> Path:
    tiny_model("gpt2", folder)
    plain = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(plain | changes), "utf-8")
    return folder


def test_a_name_that_the_library_has_not_is_told_with_the_member_that_says_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", activation_function="gelu_fancy")
    with pytest.raises(ModelError, match="config.json has activation_function 'gelu_fancy', which transformers does"):
        compared(open_folder(folder, str(folder), "folder", "model"), "causal_lm")


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "prefix_tuning"])
def test_where_no_virtual_token_fits_the_length_that_leaves_room_is_told(tmp_path: Path, method: str) -> None:
    folder = tiny_model("gpt2", tmp_path / "model")
    places = json.loads((folder / "config.json").read_text("utf-8"))["n_positions"]
    settings = {
        "model": str(folder),
        "method": {"name": method, "virtual_tokens": 16},
        "data": {"source": "reviews", "max_seq_length": places},
    }
    with pytest.raises(SettingsError) as refused:
        plan_for(settings)
    problem = next(one for one in refused.value.problems if one.field == "method.virtual_tokens")
    assert problem.limit == f"no virtual tokens fit beside rows of {places}"
    assert problem.message.endswith(f"; set data.max_seq_length to {places - 16} or less")
