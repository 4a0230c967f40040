"""Models whose layers differ: which of them are traced, and that those stand for all in real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import memory_models
from bench.memory import given
from bench.memory_models import make_models
from support.memory_peaks import measured_peak
from tuning.core.errors import RunError
from tuning.memory.estimate import estimate
from tuning.memory.process_overhead import MIB
from tuning.memory.traced import TracedMemory
from tuning.memory.tracing.layers import layout_of, window_of
from tuning.memory.tracing.table_cache import untraceable
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for
from tuning.training.build import build

SLIDING, FULL = "sliding_attention", "full_attention"
CASES = [
    ("gemma3_text", {"name": "full"}, {"rows": 4}),
    ("gemma3_text", {"name": "lora"}, {"rows": 1, "length": 64}),
    ("gemma3_text", {"name": "lora"}, {"rows": 1}),
    ("gemma3_text", {"name": "full"}, {"rows": 4, "recompute": True, "precision": "autocast_bf16", "length": 64}),
    (
        "gemma3_text",
        {"name": "lora"},
        {"rows": 4, "recompute": True, "precision": "autocast_bf16", "attention": "eager"},
    ),
    ("gemma2", {"name": "full"}, {"rows": 4, "attention": "eager"}),
    ("gemma2", {"name": "lora"}, {"rows": 1, "attention": "eager", "precision": "autocast_bf16", "length": 64}),
    ("mistral", {"name": "full"}, {"rows": 4}),
    ("mistral", {"name": "lora"}, {"rows": 1, "length": 64}),
]


def test_one_of_each_kind_stands_for_the_others() -> None:
    alike = layout_of({"num_hidden_layers": 8})
    assert alike is not None and (alike.picks, alike.stands_for) == ((0, 6, 7), (0, 5, 0))
    turns = layout_of({"num_hidden_layers": 8, "layer_types": [SLIDING, FULL] * 4})
    assert turns is not None and (turns.picks, turns.stands_for) == ((0, 1, 5, 6, 7), (0, 0, 1, 2, 0))
    rare = layout_of({"num_hidden_layers": 14, "layer_types": ([SLIDING] * 5 + [FULL]) * 2 + [SLIDING] * 2})
    assert rare is not None and (rare.picks, rare.stands_for) == ((0, 5, 11, 12, 13), (0, 0, 0, 9, 0))
    predicted, traced = rare.with_repeated_layers()
    assert traced.picks == (0, 5, 11, 12, 12, 13) and predicted.stands_for == (0, 0, 0, 1, 0)
    for layout in (alike, turns, rare):
        assert layout.depth + sum(layout.stands_for) == layout.layers
    every = layout_of({"num_hidden_layers": 3, "layer_types": [FULL] * 3})
    assert every is not None and every.whole
    assert layout_of({"num_hidden_layers": 40, "heads": list(range(40))}) is None


def test_a_window_counts_where_rows_can_be_as_long() -> None:
    config = {"sliding_window": 512, "max_position_embeddings": 2048}
    assert window_of(config) == 512
    assert window_of(config | {"layer_types": [FULL, SLIDING]}) == 512
    assert window_of(config | {"layer_types": [FULL, FULL]}) is None
    assert window_of(config | {"max_position_embeddings": 256}) is None
    assert window_of({"max_position_embeddings": 2048}) is None


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method", "changes"), CASES)
def test_layers_that_differ_are_traced_and_meet_real_runs(
    tmp_path: Path, kind: str, method: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Rows of 128 tokens are beyond the window of 96, rows of 64 within."""
    plan = plan_for(given(make_models(tmp_path, (kind,))[kind], kind, method, **changes))
    figures = estimate(usage_of(plan, make=True))
    assert figures.kind == "traced", untraceable(usage_of(plan).workloads[0])
    peak = measured_peak(plan, tmp_path / "run")
    assert figures.total_bytes == pytest.approx(peak, rel=0.005, abs=MIB // 4)


@pytest.mark.slow
def test_a_prefix_is_counted_for_every_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made outside the layers, all at once, so that traced layers cannot stand for others."""
    sizes = memory_models.SIZES["qwen2"] | {"num_hidden_layers": 14, "vocab_size": 2048}
    monkeypatch.setitem(memory_models.SIZES, "qwen2", sizes)
    method = {"name": "prefix_tuning", "virtual_tokens": 100}
    plan = plan_for(given(make_models(tmp_path, ("qwen2",))["qwen2"], "qwen2", method, rows=4))
    usage = usage_of(plan, make=True)
    assert isinstance(usage.memory, TracedMemory), untraceable(usage.workloads[0])
    assert usage.memory.table.counts(None) == (plan.value("trainable_parameters"), plan.value("total_parameters"))
    assert usage.total() == pytest.approx(measured_peak(plan, tmp_path / "run"), rel=0.005)


@pytest.mark.slow
def test_a_prefix_longer_than_a_window_is_refused(tmp_path: Path) -> None:
    method = {"name": "prefix_tuning", "virtual_tokens": 100}
    plan = plan_for(given(make_models(tmp_path, ("gemma3_text",))["gemma3_text"], "gemma3_text", method, rows=4))
    with pytest.raises(RunError, match="virtual_tokens is 100, but .* use at most 95"):
        build(plan.settings, plan.model.path, None, 1e-3, 0)
