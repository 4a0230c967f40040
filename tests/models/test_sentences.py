"""What is said of a model that a config.json describes and that cannot be built, or cannot compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.tiny_models import labelled_rows, tiny_model
from tuning.core.errors import ModelError, SettingsError
from tuning.models.base_model import open_folder
from tuning.models.weights import compare_weights
from tuning.plan.plan import plan_for
from tuning.training.job import Commands, Job
from tuning.training.run import run_job


def folder_with(folder: Path, **changes: Any) -> Path:
    tiny_model("gpt2", folder)
    plain = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(plain | changes), "utf-8")
    return folder


def test_a_name_that_the_library_has_not_is_reported_with_the_member_that_says_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", activation_function="gelu_fancy")
    with pytest.raises(ModelError, match="config.json has activation_function 'gelu_fancy', which transformers does"):
        compare_weights(open_folder(folder, str(folder), "folder", "model"), "causal_lm")


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "prefix_tuning"])
def test_where_no_virtual_token_fits_the_length_that_leaves_room_is_reported(tmp_path: Path, method: str) -> None:
    folder = tiny_model("gpt2", tmp_path / "model")
    positions = json.loads((folder / "config.json").read_text("utf-8"))["n_positions"]
    settings = {
        "model": str(folder),
        "method": {"name": method, "virtual_tokens": 16},
        "data": {"source": "reviews", "max_seq_length": positions},
    }
    with pytest.raises(SettingsError) as refused:
        plan_for(settings)
    problem = next(fault for fault in refused.value.problems if fault.field == "method.virtual_tokens")
    assert problem.limit == f"no virtual tokens fit beside rows of {positions}"
    assert problem.message.endswith(f"; set data.max_seq_length to {positions - 16} or less")


def test_a_model_whose_shapes_do_not_meet_ends_in_a_sentence(tmp_path: Path) -> None:
    """The pooler of this config.json is narrower than what it reads: the model is built, and cannot compute."""
    folder = tiny_model("gpt2", tmp_path / "model")
    for file in folder.glob("model*"):
        file.unlink()
    from transformers import AutoConfig, AutoModel

    sizes: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    config = AutoConfig.for_model("deberta", vocab_size=64, max_position_embeddings=64, pooler_hidden_size=3, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    settings = {
        "model": str(folder),
        "task": "sequence_classification",
        "method": {"name": "full"},
        "data": {"source": str(labelled_rows(tmp_path / "rows.jsonl")), "max_seq_length": 32},
        "attention": "eager",
        "max_steps": 1,
        "device": "cpu",
    }
    events: list[dict[str, Any]] = []
    job = Job(run_id="one", attempt=1, plan=plan_for(settings), folder=str(tmp_path / "out"))
    assert run_job(job, lambda kind, **data: events.append({"kind": kind} | data), Commands()) == "failed"
    assert events[-1]["message"].startswith("the model cannot compute: mat1 and mat2 shapes")
