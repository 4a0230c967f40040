"""Plans: derived numbers with their sums, refused combinations, counts that are torch's own, estimates that hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tuning.core.errors import ModelError, SettingsError, TuningError
from tuning.core.hardware import DEVICES, named_device
from tuning.core.paths import asset_path
from tuning.models.base_model import model_catalogue, resolve_model
from tuning.plan.plan import Plan, plan_for
from tuning.text import TextTokenizer
from tuning.text.prompts import question_ids


def test_every_derived_number_says_where_it_came_from() -> None:
    plan = plan_for({"micro_batch_size": 4, "gradient_accumulation_steps": 8, "num_epochs": 2})
    assert plan.value("effective_batch") == 32 and plan.derived["effective_batch"].origin == "32 = 4 x 8 x 1"
    assert plan.value("total_steps") == 2 * plan.value("updates_per_epoch")
    assert plan.derived["learning_rate"].origin.startswith("LoRA's default")
    assert all(one.origin for one in plan.derived.values())
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_typed_learning_rate_survives_a_change_of_method() -> None:
    for method in ("lora", "full"):
        plan = plan_for({"optimizer": {"learning_rate": 0.007}, "method": {"name": method}})
        assert plan.value("learning_rate") == 0.007
    rates = {name: plan_for({"method": {"name": name}}).value("learning_rate") for name in ("lora", "full")}
    assert rates["lora"] > rates["full"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"data": {"max_seq_length": 100_000}}, "data.max_seq_length"),
        ({"method": {"name": "lora", "r": 4096}}, "method.r"),
        ({"model": "no-such-model"}, "model"),
        ({"model": "./nowhere"}, "model"),
        ({"data": {"source": "./nowhere.jsonl"}}, "data.source"),
        ({"data": {"source": "chats"}, "task": "sequence_classification"}, "task"),
        ({"revision": "main"}, "revision"),
        ({"recipe": {"name": "r_tuning"}}, "recipe"),
        ({"recipe": {"name": "r_tuning", "form": "maybe"}, "data": {"source": "people-questions"}}, "recipe.form"),
        ({"recipe": {"name": "stew"}}, "recipe.name"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_its_field(given: dict, field: str) -> None:
    with pytest.raises(TuningError) as caught:
        plan_for(given)
    assert field in {problem.field for problem in caught.value.problems}


@pytest.mark.parametrize("task", ["causal_lm", "sequence_classification"])
@pytest.mark.parametrize(
    "method",
    [
        {"name": "full"},
        {"name": "lora"},
        {"name": "lora", "r": 4, "dora": True},
        {"name": "lora", "target_modules": "attention"},
    ],
)
def test_the_counts_shown_are_torchs(task: str, method: dict) -> None:
    from tuning.training.build import build

    plan = plan_for({"task": task, "method": method, "device": "cpu"})
    names = plan.data.label_names if plan.class_count else None
    model = build(plan.settings, plan.model.path, names, 1e-3, 0).model
    assert plan.value("trainable_parameters") == sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen_head_copy = (
        model.base_model.model.score.original_module.weight.numel() if "lora" in str(method) and names else 0
    )
    assert plan.value("total_parameters") == sum(p.numel() for p in model.parameters()) - frozen_head_copy


def test_a_model_folder_must_be_whole_and_safe(tmp_path: Path) -> None:
    whole = tmp_path / "copy"
    shutil.copytree(asset_path("models", "tiny-town"), whole)
    assert resolve_model(str(whole)).shape == resolve_model("tiny-town").shape == model_catalogue()[0].shape
    (whole / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer.json"):
        resolve_model(str(whole))
    (whole / "model.safetensors").rename(whole / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        resolve_model(str(whole))
    (whole / "config.json").write_text("{")
    with pytest.raises(ModelError):
        resolve_model(str(whole))


def test_named_devices_and_unknown_ones() -> None:
    assert named_device("t4 16 gb").total_bytes < 16 * 2**30
    assert named_device(None).here
    assert len({device.name for device in DEVICES}) == len(DEVICES)
    with pytest.raises(SettingsError, match="no device"):
        named_device("Abacus")


def test_a_sample_prompt_is_counted_as_it_is_asked(tmp_path: Path) -> None:
    """As a chat where conversations are trained on, as it stands elsewhere."""
    text = "Where does Ada Vaneby live?"
    asked = {"sample": {"prompts": [text]}}
    tokenizer = TextTokenizer(asset_path("models", "tiny-town"))
    system = "Answer in one word."

    def counted(head: str | None, chat: bool) -> int:
        return len(question_ids(text, tokenizer, head, chat=chat))

    assert counted(system, True) > counted(None, True) > counted(None, False)
    assert counted(system, False) == counted(None, False) + len(tokenizer.encode(f"{system}\n"))
    for source, chat in (("chats", True), ("people-questions", False), ("reviews", False)):
        settings = asked | {"data": {"source": source, "system_prompt": system}}
        assert plan_for(settings).value("sample_length") == counted(system, chat), "rows have it before their prompts"
    (tmp_path / "texts.txt").write_text("The mill is old.\nThe river is wide.\n" * 5)
    texts = asked | {"data": {"source": str(tmp_path / "texts.txt"), "system_prompt": system}}
    assert plan_for(texts).value("sample_length") == counted(None, False), "texts have no prompts"
