"""What is offered to take less memory: it saves what it says, of the run's highest moment, and is never refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuning.core.hardware import Device, named_device
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.tracing.table_cache import make_tables
from tuning.memory.usage import usage_of
from tuning.memory.what_if import what_if
from tuning.plan.plan import Plan, plan_for
from tuning.ui.memory_bar import memory_bar

WRITTEN = {"every": None, "metrics": ["exact_match"], "max_new_tokens": 64}


def offered(settings: dict[str, Any]) -> tuple[Plan, Device, list[dict[str, Any]]]:
    """The plan, a device that is too small for it, and what is offered there."""
    plan = plan_for({"device": "cpu"} | settings)
    device = replace(plan.device, total_bytes=2**20)
    estimate(usage_of(plan, device, make=True))
    return plan, device, what_if(usage_of(plan, device))["fixes"]


def applied(plan: Plan, fix: dict[str, Any]) -> Plan:
    """The plan as it is after one press, worked out anew. Refused settings raise."""
    settings = plan.settings.to_dict()
    for name, value in fix["settings"].items():
        settings[name] = settings[name] | value if name in ("data", "eval", "sample", "optimizer") else value
    return plan_for(settings)


def highest(figures: MemoryEstimate) -> int:
    return max(figures.total_bytes, figures.evaluation_bytes, figures.generation_bytes)


def assert_each_saves_what_it_says(plan: Plan, device: Device) -> None:
    make_tables([usage_of(applied(plan, fix)).workloads[0] for fix in what_if(usage_of(plan, device))["fixes"]])
    before, fixes = estimate(usage_of(plan, device)), what_if(usage_of(plan, device))["fixes"]
    ranks = [(not fix["fits"], -fix["saved_bytes"]) for fix in fixes]
    assert fixes and ranks == sorted(ranks)
    for fix in fixes:
        after = estimate(usage_of(applied(plan, fix), device))
        assert after.kind == "traced"
        saved = highest(before) - highest(after)
        if "generate_rows" in fix["cost"]:  # the rows that are left may have shorter prompts besides: never less saved
            assert fix["saved_bytes"] <= saved <= 1.02 * fix["saved_bytes"], fix["cost"]
        else:
            assert saved == fix["saved_bytes"], fix["cost"]
        assert before.total_bytes - after.total_bytes == fix["update_saved_bytes"], fix["cost"]
        assert after.fits == fix["fits"]


def names(fixes: list[dict[str, Any]]) -> list[set[str]]:
    return [set(fix["settings"]) for fix in fixes]


@pytest.mark.parametrize(
    ("method", "shorter"),
    [({"name": "retrieval", "top_k": 8}, ("top_k", 4)), ({"name": "prompt_engineering", "shots": 16}, ("shots", 8))],
)
def test_a_run_without_updates_is_offered_what_it_can_shorten(method: dict[str, Any], shorter: tuple[str, int]) -> None:
    """Shorter prompts and fewer rows at once; nothing that only an update would notice."""
    settings = {"data": {"source": "people-questions"}, "method": method, "micro_batch_size": 32, "attention": "eager"}
    plan, device, fixes = offered(settings | {"eval": WRITTEN})
    assert {"method"} in names(fixes) and {"micro_batch_size"} in names(fixes) and {"attention"} in names(fixes)
    assert not {"gradient_checkpointing", "gradient_accumulation_steps", "data"} & set().union(*names(fixes))
    (block,) = (fix["settings"]["method"] for fix in fixes if "method" in fix["settings"])
    assert block["name"] == method["name"] and block[shorter[0]] == shorter[1]
    assert_each_saves_what_it_says(plan, device)
    shown = what_if(usage_of(plan, device))
    assert shown["effective_batch"] is None and not shown["several"] and not shown["step"]
    assert shown["lengths"]["at"] == plan.value("prompted_length")


def test_nothing_is_offered_where_nothing_helps() -> None:
    """A question as it stands, few rows at once, no answer written."""
    settings = {"data": {"source": "people-questions"}, "method": {"name": "prompt_engineering"}}
    plan, device, fixes = offered(settings)
    figures = estimate(usage_of(plan, device))
    assert fixes == [] and not figures.fits and figures.largest_micro_batch is None
    assert figures.total_bytes == figures.evaluation_bytes == sum(figures.parts.values())


def test_the_largest_micro_batch_of_a_run_without_updates_is_about_its_evaluation() -> None:
    plan = plan_for({"data": {"source": "people-questions"}, "method": {"name": "prompt_engineering", "shots": 8}})
    expected = replace(plan, settings=plan.settings.replace(micro_batch_size=20))
    device = replace(plan.device, total_bytes=estimate(usage_of(expected, make=True)).high_bytes)
    assert estimate(usage_of(plan, device)).largest_micro_batch == 20
    assert estimate(usage_of(plan)).largest_micro_batch == -(-plan.data.eval_rows // 2), (
        "more than that changes nothing"
    )


@pytest.mark.parametrize("by_length", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_largest_micro_batch_is_found_where_more_rows_take_less(by_length: bool, share: float) -> None:
    """Without accumulation no gradients of an earlier micro-batch are alive: 8 rows x 2 take more than 16 x 1."""
    data = {"train_rows": 40, "eval_rows": 8, "max_seq_length": 12, "group_by_length": by_length}
    settings = {"method": {"name": "full"}, "micro_batch_size": 4, "gradient_accumulation_steps": 4, "data": data}
    plan = plan_for({"device": "cpu"} | settings)
    usage = usage_of(plan, make=True)
    assert usage.peak_of_run(8) > usage.peak_of_run(16), "what this test is about"
    for rows in (16, 8, 5):
        high = usage.process_band(usage.peak_of_run(rows))[2]
        device = replace(plan.device, total_bytes=int(share * high))
        held = usage_of(plan, device)
        fitting = [count for count in range(1, plan.data.train_rows + 1) if held.fits(count)]
        assert estimate(held).largest_micro_batch == max(fitting, default=None)


def test_what_is_highest_is_what_the_fixes_are_about() -> None:
    """Here long answers are: half an update's memory changes nothing, half the answer does."""
    data = {"source": "people-questions", "train_rows": 40, "eval_rows": 16}
    settings = {"data": data, "eval": WRITTEN | {"max_new_tokens": 400}, "sample": {"prompts": ["Who?"]}}
    plan, device, fixes = offered(settings | {"micro_batch_size": 2})
    figures = estimate(usage_of(plan, device))
    assert figures.generation_bytes > max(figures.total_bytes, figures.evaluation_bytes)
    assert names(fixes)[:2] == [{"eval"}, {"eval"}] and all(fix["saved_bytes"] > 2**20 for fix in fixes[:2])
    behind = [fix for fix in fixes if not fix["saved_bytes"]]
    assert {"micro_batch_size", "gradient_accumulation_steps"} in names(behind)
    assert all(fix["update_saved_bytes"] > 0 for fix in behind)
    assert [fix["cost"] for fix in figures.fixes] == [fix["cost"] for fix in fixes if fix["saved_bytes"]]
    assert_each_saves_what_it_says(plan, device)


def test_sample_prompts_are_let_go_where_they_are_what_is_highest() -> None:
    data = {"source": "people-questions", "max_seq_length": 16, "train_rows": 40, "eval_rows": 8}
    sample = {"prompts": ["Who?", "The river is old. " * 80]}
    plan, device, fixes = offered({"data": data, "sample": sample, "micro_batch_size": 1})
    assert estimate(usage_of(plan, device)).generation_bytes == highest(estimate(usage_of(plan, device)))
    assert {"sample": {"prompts": []}} in [fix["settings"] for fix in fixes[:2]]
    assert_each_saves_what_it_says(plan, device)


def test_what_a_method_refuses_is_not_offered() -> None:
    for name, able in (("prefix_tuning", False), ("prompt_tuning", True)):
        fixes = offered({"method": {"name": name}})[2]
        assert ({"gradient_checkpointing"} in names(fixes)) == able


def test_rows_and_steps_that_are_suggested_give_the_effective_batch_exactly() -> None:
    """Of 24 rows at most 13 fit: 12 x 2 is told, not 13 x 2."""
    settings = {"method": {"name": "lora"}, "micro_batch_size": 6, "gradient_accumulation_steps": 4}
    plan = plan_for({"device": "cpu"} | settings)
    usage = usage_of(plan, make=True)
    device = replace(plan.device, total_bytes=usage.process_band(usage.peak_of_run(13))[2])
    shown = what_if(usage_of(plan, device))
    assert shown["largest_micro_batch"] == 13 and shown["reaches"] == {"rows": 12, "steps": 2} and shown["fits"]
    assert shown["all_rows"] is None and what_if(usage_of(plan))["all_rows"] == plan.data.train_rows
    small = what_if(usage_of(plan, replace(plan.device, total_bytes=2**20)))
    assert small["reaches"] is None and not small["fits"]


def test_where_the_held_out_rows_are_the_limit_it_says_so() -> None:
    plan = plan_for({"data": {"source": "people-questions"}, "method": {"name": "prompt_engineering", "shots": 8}})
    usage_of(plan, make=True)
    assert what_if(usage_of(plan))["all_rows"] == plan.data.eval_rows


LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def on_t4(folder: Path, **settings: Any) -> tuple[Plan, Device]:
    """A plan of an 8B model, by formula, held against a card without bf16."""
    (folder / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8")
    return plan_for({"device": "cpu", "model": str(folder)} | settings), named_device("T4 16 GB")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": {"name": "full"}, "precision": "autocast_bf16"}, "T4 16 GB does not compute in bf16; use fp32"),
        ({"method": {"name": "qlora"}}, "auto takes on CUDA"),
    ],
)
def test_a_card_that_cannot_compute_in_bf16_is_reported_and_offered_what_adds_no_refusal(
    tmp_path: Path, settings: dict[str, Any], word: str
) -> None:
    plan, card = on_t4(tmp_path, micro_batch_size=32, **settings)
    figures = estimate(usage_of(plan, card))
    assert figures.device_lacks is not None and word in figures.device_lacks
    assert (
        estimate(usage_of(plan, named_device("A100 80 GB"))).device_lacks is None
        and estimate(usage_of(plan)).device_lacks is None
    )
    assert {"gradient_checkpointing"} in names(what_if(usage_of(plan, card))["fixes"])
    bar = memory_bar(figures, card.kind)
    assert bar["verdict"] == "over" and bar["words"].startswith("Cannot run there") and word in bar["note"]


def test_pressing_what_saves_most_leads_to_a_run_that_fits(tmp_path: Path) -> None:
    """An 8B model, all weights trained: LoRA alone does not fit 16 GB; the four bits it leads to do."""
    plan, card = on_t4(tmp_path, method={"name": "full"})
    shown = what_if(usage_of(plan, card))
    assert not shown["fits"]
    optimizers = [fix["settings"]["optimizer"]["name"] for fix in shown["fixes"] if "optimizer" in fix["settings"]]
    assert set(optimizers) == {"adamw_8bit", "adafactor"}
    for _ in range(8):
        if estimate(usage_of(plan, card)).fits:
            break
        plan = applied(plan, what_if(usage_of(plan, card))["fixes"][0])
    figures = estimate(usage_of(plan, card))
    assert figures.fits and figures.device_lacks is None and plan.settings.method.name == "qlora"


def test_lora_becomes_qlora_of_the_same_rank_and_one_that_cannot_starts_plainly(tmp_path: Path) -> None:
    for init, rank in (("default", 64), ("pissa", 8)):
        plan, card = on_t4(tmp_path, method={"name": "lora", "r": 64, "init": init})
        (block,) = (
            fix["settings"]["method"] for fix in what_if(usage_of(plan, card))["fixes"] if "method" in fix["settings"]
        )
        assert (block["name"], block["r"], block["init"], block["compute_dtype"]) == ("qlora", rank, "default", "fp32")
        applied(plan, {"settings": {"method": block}})


def test_a_leaner_optimizer_says_that_a_typed_rate_is_not_its_own() -> None:
    for typed in (None, 1e-3):
        fixes = offered({"method": {"name": "full"}, "optimizer": {"learning_rate": typed}})[2]
        (cost,) = (fix["cost"] for fix in fixes if fix["settings"].get("optimizer") == {"name": "adafactor"})
        assert ("learning_rate" in cost) == (typed is not None)
    assert not any("optimizer" in fix["settings"] for fix in offered({"method": {"name": "lora"}})[2])


def test_cutting_rows_names_the_field_as_it_stands_and_is_offered_only_where_it_helps() -> None:
    plan, _, fixes = offered({"data": {"max_seq_length": 128}})
    longest = plan.value("widest_length")
    (cost,) = (fix["cost"] for fix in fixes if "data" in fix["settings"])
    assert cost.startswith(f"max_seq_length 128 -> {longest // 2} (the longest row has {longest} tokens): ")
    few = {"data": {"max_seq_length": 40}, "micro_batch_size": 1, "method": {"name": "full"}}
    plan, _, fixes = offered(few | {"gradient_checkpointing": True})
    saved = usage_of(plan).total() - usage_of(plan).total(length=20)
    assert 0 <= saved < 0.02 * usage_of(plan).peak_of_run(), "what this test is about"
    assert not any("data" in fix["settings"] for fix in fixes)
