"""A real pretrained encoder sorts texts after a short run, far above chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny_models import encoder_folder
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter, Event
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

TOPICS, CHANCE = 6, 1 / 6


@pytest.mark.slow
def test_an_encoder_learns_topics_from_160_texts(tmp_path: Path) -> None:
    plan = plan_for(
        {
            "model": str(encoder_folder()),
            "task": "sequence_classification",
            "method": {"name": "lora"},
            "data": {"source": "topics", "max_seq_length": 32, "eval_rows": 60},
            "micro_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_steps": 20,
            "eval": {"every": None},
            "device": "cpu",
        }
    )
    assert plan.class_count == TOPICS and plan.model.tasks == ("sequence_classification",)
    events: list[Event] = []
    job = Job(run_id="r", attempt=1, plan=plan, folder=str(tmp_path))
    assert run_job(job, Emitter("r", 1, events.append), Commands()) == "finished", events[-1].data
    before, after = (event.data["metrics"]["accuracy"] for event in events if event.kind == "eval")
    assert before < 2.5 * CHANCE
    assert after > 0.6
