"""A card allocates otherwise than a processor: dropout, attention's dropout, autocast's 32 bits; and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from bench.memory import given
from bench.memory_models import make_models
from tuning.core.hardware import named_device
from tuning.memory.tracing.cuda_dtypes import cuda_allocations
from tuning.memory.tracing.table_cache import untraceable
from tuning.memory.usage import MemoryUsage, usage_of
from tuning.memory.workload import workload_of
from tuning.plan.plan import Plan, plan_for

CARD = named_device("A100 80 GB")
LAYERS, ROWS, HEADS, LENGTH, WIDTH = 5, 4, 6, 128, 192
"""Of the BERT that is made, and its micro-batch."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_models(tmp_path_factory.mktemp("models"), ("llama", "gpt2", "bert"))


def plan_of(models: dict[str, str], kind: str, **changes: object) -> Plan:
    settings = given(models[kind], kind, {"name": "full"}, rows=ROWS, **changes)  # type: ignore[arg-type]
    assert settings is not None
    return plan_for(settings)


def traced(plan: Plan) -> MemoryUsage:
    usage = usage_of(plan, make=True)
    assert usage.kind == "traced", untraceable(workload_of(plan))
    return usage


@pytest.mark.slow
def test_dropout_keeps_a_byte_an_element_and_attention_keeps_none(models: dict[str, str]) -> None:
    """All layers' masks live where the last layer's backward pass begins, but the one it has used already."""
    eager = plan_of(models, "bert", attention="eager")
    here, there = traced(eager), traced(eager.with_device(CARD))
    attention, hidden = ROWS * HEADS * LENGTH * LENGTH, ROWS * LENGTH * WIDTH
    masks = LAYERS * (attention + 2 * hidden)  # the embeddings' too, but one of the last layer's is used already
    assert here.total() - there.total() == pytest.approx(3 * masks, rel=0.01)
    sdpa = traced(plan_of(models, "bert").with_device(CARD))
    assert there.total() - sdpa.total() > LAYERS * attention  # the masks, and what softmax keeps besides


@pytest.mark.slow
def test_recomputed_layers_draw_the_same_on_a_card(models: dict[str, str]) -> None:
    stored, recomputed = (traced(plan_of(models, "gpt2", recompute=again).with_device(CARD)) for again in (False, True))
    assert recomputed.total() < 0.8 * stored.total()


def test_where_a_card_makes_no_difference_the_table_is_the_processors(models: dict[str, str]) -> None:
    plain = plan_of(models, "llama")
    assert workload_of(plain.with_device(CARD)) == workload_of(plain)
    for other in (plan_of(models, "llama", precision="autocast_bf16"), plan_of(models, "bert")):
        assert workload_of(other.with_device(CARD)).on_cuda and not workload_of(other).on_cuda
        assert workload_of(other.with_device(CARD)).key != workload_of(other).key


def test_under_autocast_a_card_computes_norms_and_powers_in_32_bits_and_only_while_it_is_on() -> None:
    x, before = torch.ones(2, 4, dtype=torch.bfloat16), torch.Tensor.pow

    def kinds() -> list[torch.dtype]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = [functional.layer_norm(x, (4,)), x.pow(2), torch.pow(x, 2.0), x.sum(), x @ x.T]
            return [tensor.dtype for tensor in results]

    with cuda_allocations():
        assert kinds() == [torch.float32] * 4 + [torch.bfloat16]
        assert functional.layer_norm(x, (4,)).dtype == torch.bfloat16  # without autocast as it comes
    assert torch.Tensor.pow is before and torch.bfloat16 in kinds()[1:4]


def test_what_a_config_leaves_unsaid_of_dropout_is_taken_to_drop(models: dict[str, str], tmp_path: Path) -> None:
    """GPT-2 with one of its three switched off drops by default at the other two."""
    every = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    small = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 512, "n_positions": 256}
    for batch, drops in ((every, False), ({"attn_pdrop": 0.0}, True), ({}, True), (every | {"embd_pdrop": 0.1}, True)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(small | batch), encoding="utf-8")
        assert workload_of(plan_for({"model": str(folder)}).with_device(CARD)).on_cuda is drops


def test_auto_means_on_a_card_what_a_run_there_takes(models: dict[str, str]) -> None:
    settings = {"model": models["llama"], "method": {"name": "qlora"}, "device": "cpu"}
    plans = {
        kind: plan_for(settings | {"method": {"name": "qlora", "compute_dtype": kind}}) for kind in ("auto", "bf16")
    }
    assert workload_of(plans["auto"].with_device(CARD)) == workload_of(plans["bf16"].with_device(CARD))
    assert workload_of(plans["auto"]) != workload_of(plans["bf16"])
