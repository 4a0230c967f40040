"""Every family trains: plan, estimate, two updates, saved, loaded again by plain libraries.

The models are small and random, in folders as a person would have them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from support.tiers import first_only
from support.tiny_models import ENCODERS, POSITIONS, SMALL, labelled_rows, tiny_model
from tuning.memory.estimate import estimate
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter, Event
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

RUNS = [
    (family, task, method)
    for family in ("llama", "qwen3", "gpt2", "bert", "gemma", "phi", "roberta")
    for task in ("causal_lm", "sequence_classification")
    for method in ("lora", "full")
    if not (family in ENCODERS and task == "causal_lm")
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    labelled_rows(folder / "rows.jsonl")
    return {family: tiny_model(family, folder / family) for family in SMALL}


def settings(folder: Path, task: str, method: str, **changes: Any) -> dict[str, Any]:
    columns = {"prompt": "prompt", "completion": "completion"}
    if task == "sequence_classification":
        columns = {"text": "text", "label": "label"}
    data = {"source": str(folder.parent / "rows.jsonl"), "columns": columns, "max_seq_length": POSITIONS}
    plain = {
        "model": str(folder),
        "task": task,
        "method": {"name": method},
        "data": data,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 2,
        "device": "cpu",
        "eval": {"every": None},
    }
    return plain | changes


@pytest.mark.parametrize("family", SMALL)
def test_the_counted_parameters_are_torchs(folders: dict[str, Path], family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from tuning.models.base_model import resolve_model

    model = resolve_model(str(folders[family]))
    assert model.shape.is_exact and model.shape.max_positions == POSITIONS
    if "causal_lm" in model.tasks:
        loaded = AutoModelForCausalLM.from_pretrained(folders[family])
        assert model.shape.parameters == sum(weight.numel() for weight in loaded.parameters())
    classes = AutoModelForSequenceClassification.from_pretrained(folders[family], num_labels=3)
    counted = model.shape.body_parameters + model.shape.classifier_parameters(3)
    assert counted == sum(weight.numel() for weight in classes.parameters())
    names = [name for name, _ in classes.named_modules()]
    for linear in model.shape.linears:
        assert sum(name.endswith("." + linear) for name in names) >= model.shape.num_layers, linear


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task", "method"), RUNS)
def test_a_family_trains_and_its_result_loads_again(
    folders: dict[str, Path], tmp_path: Path, family: str, task: str, method: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    plan = plan_for(settings(folders[family], task, method))
    assert estimate(usage_of(plan)).total_bytes > 0
    events: list[Event] = []
    job = Job(run_id="r", attempt=1, plan=plan, folder=str(tmp_path))
    assert run_job(job, Emitter("r", 1, events.append), Commands()) == "finished", events[-1].data
    losses = [event.data["loss"] for event in events if event.kind == "step"]
    assert len(losses) == 2 and all(loss is not None and math.isfinite(loss) for loss in losses)
    started = next(event.data for event in events if event.kind == "started")
    assert started["trainable_parameters"] == plan.value("trainable_parameters")
    maker = AutoModelForCausalLM if task == "causal_lm" else AutoModelForSequenceClassification
    labels = {} if task == "causal_lm" else {"num_labels": 2}
    if method == "full":
        maker.from_pretrained(tmp_path / "model")
    else:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(maker.from_pretrained(folders[family], **labels), tmp_path / "adapter")
        assert any("lora_B" in name and bool(weight.abs().sum() > 0) for name, weight in loaded.named_parameters())


@pytest.mark.parametrize("family", first_only(["qwen3", "gpt2", "gemma", "phi"]))
def test_cached_features_go_into_each_familys_own_output_layer(
    folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    curves = []
    for cache in (True, False):
        method = {"name": "feature_extraction", "cache": cache}
        plan = plan_for(settings(folders[family], "causal_lm", "full") | {"method": method})
        events: list[Event] = []
        job = Job(run_id="r", attempt=1, plan=plan, folder=str(tmp_path / str(cache)))
        assert run_job(job, Emitter("r", 1, events.append), Commands()) == "finished", events[-1].data
        curves.append([event.data["loss"] for event in events if event.kind == "step"])
    assert len(curves[0]) == 2 and curves[0] == pytest.approx(curves[1], abs=1e-5)


@pytest.mark.parametrize("family", first_only(["qwen3", "gpt2", "gemma", "bert", "roberta"]))
def test_padding_changes_no_familys_curve(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Eight rows at once, padded to the longest, give the update that eight single rows give."""
    curves = []
    for micro, steps in ((8, 1), (1, 8)):
        plain = settings(folders[family], "sequence_classification", "full", micro_batch_size=micro)
        plan = plan_for(plain | {"gradient_accumulation_steps": steps})
        events: list[Event] = []
        run_job(
            Job(run_id="r", attempt=1, plan=plan, folder=str(tmp_path / str(micro))),
            Emitter("r", 1, events.append),
            Commands(),
        )
        curves.append([event.data["loss"] for event in events if event.kind == "step"])
    assert len(curves[0]) == 2 and curves[0] == pytest.approx(curves[1], rel=2e-5)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_refused_for_writing(folders: dict[str, Path], family: str) -> None:
    from tuning.core.errors import SettingsError

    with pytest.raises(SettingsError, match="cannot write") as refusal:
        plan_for(settings(folders[family], "causal_lm", "lora"))
    assert refusal.value.problems[0].field == "task"


def test_the_context_bounds_the_length(folders: dict[str, Path]) -> None:
    from tuning.core.errors import SettingsError

    plain = settings(folders["roberta"], "sequence_classification", "full")
    plain["data"]["max_seq_length"] = POSITIONS + 1
    with pytest.raises(SettingsError, match=f"{POSITIONS} positions") as refusal:
        plan_for(plain)
    assert refusal.value.problems[0].field == "data.max_seq_length"
