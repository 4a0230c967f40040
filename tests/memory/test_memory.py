"""The memory estimate: it moves the right way, holds what it says in words, and meets what real runs take."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.memory import given
from bench.memory_models import make_models
from support.memory_peaks import measured_peak
from tuning.memory.estimate import estimate
from tuning.memory.process_overhead import MIB
from tuning.memory.tracing.table_cache import make_tables, untraceable
from tuning.memory.usage import usage_of
from tuning.plan.plan import Plan, plan_for


def traced(settings: dict[str, Any]) -> Plan:
    """The plan of these settings, its table made."""
    plan = plan_for(settings)
    assert usage_of(plan, make=True).kind == "traced", untraceable(usage_of(plan).workloads[0])
    return plan


def test_the_formula_moves_the_right_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.memory.usage.find_table", lambda workload: None)

    def total(**changes: object) -> int:
        return estimate(usage_of(plan_for({"method": {"name": "full"}, **changes}))).total_bytes

    base = total(micro_batch_size=4)
    assert total(micro_batch_size=16) > 1.5 * base
    assert total(micro_batch_size=16, gradient_checkpointing=True) < total(micro_batch_size=16)
    assert total(method={"name": "lora"}) < base
    assert total(optimizer={"name": "sgd"}) < base
    # an update of more rows has longer ones among them, and no more of them at once
    assert total(gradient_accumulation_steps=16) == pytest.approx(total(gradient_accumulation_steps=2), rel=0.1)


def test_the_fallback_says_so_and_has_a_wider_band(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = traced({})
    exact = estimate(usage_of(plan))
    monkeypatch.setattr("tuning.memory.usage.find_table", lambda workload: None)
    rough = estimate(usage_of(plan))
    assert (exact.kind, rough.kind) == ("traced", "approximate")
    for figures in (exact, rough):
        assert figures.total_bytes == sum(figures.parts.values())
        assert figures.low_bytes < figures.process_bytes < figures.high_bytes
    assert rough.high_bytes - rough.low_bytes > exact.high_bytes - exact.low_bytes


def test_fixes_save_what_they_say_and_keep_the_effective_batch() -> None:
    plan = traced({"micro_batch_size": 64, "gradient_accumulation_steps": 1, "method": {"name": "full"}})
    small = replace(plan.device, total_bytes=2**20)
    shown = estimate(usage_of(plan, small))
    assert not shown.fits and shown.fixes and shown.largest_micro_batch is None
    saved = [fix["saved_bytes"] for fix in shown.fixes]
    assert saved == sorted(saved, reverse=True)
    halved = next(fix for fix in shown.fixes if "micro_batch_size" in fix["settings"])
    changed = plan_for(plan.settings.to_dict() | halved["settings"])
    assert changed.value("effective_batch") == plan.value("effective_batch")
    assert (
        estimate(usage_of(plan)).total_bytes - estimate(usage_of(changed)).total_bytes == halved["update_saved_bytes"]
    )


def test_the_largest_micro_batch_fits_and_one_row_more_does_not() -> None:
    plan = traced({"method": {"name": "full"}})
    rows = plan.data.train_rows // 4
    device = replace(
        plan.device,
        total_bytes=estimate(usage_of(replace(plan, settings=plan.settings.replace(micro_batch_size=rows)))).high_bytes,
    )
    assert estimate(usage_of(plan, device)).largest_micro_batch == rows
    wider = replace(plan, settings=plan.settings.replace(micro_batch_size=rows + 1))
    assert not estimate(usage_of(wider, device)).fits


def test_a_shorter_limit_on_the_same_data_is_another_shape() -> None:
    long = traced({"data": {"source": "reviews", "max_seq_length": 64}, "micro_batch_size": 8})
    short = plan_for({"data": {"source": "reviews", "max_seq_length": 24}, "micro_batch_size": 8})
    first = [estimate(usage_of(plan)).total_bytes for plan in (long, short)]
    assert first == [estimate(usage_of(plan)).total_bytes for plan in (long, short)] and first[0] > first[1]
    assert first[::-1] == [estimate(usage_of(plan)).total_bytes for plan in (short, long)]


@pytest.mark.parametrize("method", ["full", "lora", "ia3", "prompt_tuning"])
def test_the_line_of_a_step_is_highest_at_the_peak_of_the_bar(method: str) -> None:
    for rows, steps, longest in ((1, 1, 16), (1, 4, 256), (4, 1, 64), (4, 4, 256), (32, 2, 256)):
        data = {"source": "reviews", "max_seq_length": longest}
        sizes = {"micro_batch_size": rows, "gradient_accumulation_steps": steps}
        plan = traced({"method": {"name": method}, "data": data, **sizes})
        figures, line = estimate(usage_of(plan)), usage_of(plan).through_step()
        top = max(count for _, count in line)
        assert top == figures.total_bytes
        assert figures.peak_at in [point for point, count in line if count == top]
        stretches = [name for name, _ in itertools.groupby(line, key=lambda point: point[0])]
        assert len(stretches) == len(set(stretches)) and stretches[0] == "start", "in the order of time"


CASES = [
    ("llama", {"name": "full"}, {"rows": 4}),
    ("llama", {"name": "lora"}, {"rows": 1, "precision": "autocast_bf16", "attention": "eager"}),
    ("gpt2", {"name": "full"}, {"rows": 4, "recompute": True}),
    ("gpt2", {"name": "lora", "r": 16}, {"rows": 4, "steps": 1}),
    ("qwen2", {"name": "lora"}, {"rows": 4, "recompute": True, "precision": "autocast_bf16"}),
    ("qwen2", {"name": "full"}, {"rows": 1, "attention": "eager", "optimizer": "sgd"}),
    ("bert", {"name": "full"}, {"rows": 4, "precision": "autocast_bf16"}),
    ("bert", {"name": "lora"}, {"rows": 4, "length": 100}),
]


@pytest.mark.slow
def test_the_estimate_is_what_real_runs_take(tmp_path: Path) -> None:
    """Eight runs over four kinds of models: median error at most 0.5 %, worst 3 % or 12 MiB."""
    models = make_models(tmp_path, ("llama", "gpt2", "qwen2", "bert"))
    settings = [given(models[name], name, method, **case) for name, method, case in CASES]
    plans = [plan_for(settings_object) for settings_object in settings if settings_object is not None]
    assert len(plans) == len(CASES)
    make_tables([usage_of(plan).workloads[0] for plan in plans])
    errors = []
    for i, plan in enumerate(plans):
        figures, peak = estimate(usage_of(plan)), measured_peak(plan, tmp_path / f"run{i}")
        assert figures.kind == "traced", untraceable(usage_of(plan).workloads[0])
        gap = abs(figures.total_bytes - peak)
        assert gap <= max(0.03 * peak, 12 * MIB), f"{CASES[i]}: {figures.total_bytes} for {peak}"
        errors.append(gap / peak)
    assert sorted(errors)[len(errors) // 2] <= 0.005, errors


def test_a_model_that_is_nowhere_is_estimated_from_its_config(tmp_path: Path) -> None:
    """70 billion weights: no weight is read, and the table comes within its time."""
    config = {
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plan = traced({"model": str(tmp_path), "method": {"name": "lora", "r": 16}, "gradient_checkpointing": True})
    figures = estimate(usage_of(plan))
    assert figures.kind == "traced" and not figures.fits
    assert figures.parts["weights"] == pytest.approx(4 * 70.55e9, rel=0.01)
