"""On a real pretrained encoder: frozen features beat a random body's by far, and full fine-tuning runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.tiny_jobs import run
from support.tiny_models import encoder_folder
from tuning.plan.plan import plan_for
from tuning.training.job import Job

pytestmark = pytest.mark.slow


def accuracy(place: Path, method: dict[str, Any], **more: Any) -> float:
    plan = plan_for(
        {
            "model": str(encoder_folder()),
            "task": "sequence_classification",
            "method": method,
            "micro_batch_size": 8,
            "data": {"source": "topics", "max_seq_length": 32, "train_rows": 120, "eval_rows": 60},
            "gradient_accumulation_steps": 2,
            "eval": {"every": None},
            "device": "cpu",
        }
        | more
    )
    state, events = run(Job(run_id="r", attempt=1, plan=plan, folder=str(place)))
    assert state == "finished", events[-1].data
    return [event.data["metrics"]["accuracy"] for event in events if event.kind == "eval"][-1]


def test_pretrained_features_make_less_than_half_the_errors_of_random_ones(tmp_path: Path) -> None:
    """From 18 texts of six topics, three draws: with many texts a random body's bag of words is enough too."""
    few = {"source": "topics", "max_seq_length": 32, "train_rows": 18, "eval_rows": 60}
    real, control = (
        sum(
            1
            - accuracy(
                tmp_path / f"{random}-{seed}",
                {"name": "feature_extraction", "random_body": random},
                max_steps=60,
                optimizer={"learning_rate": 0.02},
                data=few,
                seed=seed,
            )
            for seed in range(3)
        )
        for random in (False, True)
    )
    assert real < control / 2, (real, control)


def test_full_fine_tuning_learns_it_too(tmp_path: Path) -> None:
    assert accuracy(tmp_path, {"name": "full"}, max_steps=10) > 2 / 6, "twice chance after ten updates"
