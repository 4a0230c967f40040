"""Rows joined into one: the kinds of model that keep them apart, what is refused, and what memory it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support.memory_peaks import measured_peak
from tuning.core.errors import SettingsError
from tuning.memory.estimate import estimate
from tuning.memory.tracing.table_cache import make_tables
from tuning.memory.usage import usage_of
from tuning.models.families import FAMILIES
from tuning.plan.plan import plan_for

PACKING = [kind for kind, family in FAMILIES.items() if family.supports_packing]
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def random_model(kind: str, attention: str) -> Any:
    """A small model of this kind with large random weights, so that seeing the wrong rows shows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    default = AutoConfig.for_model(kind)
    config = type(default)(**{name: size for name, size in SIZES.items() if hasattr(default, name)})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "attention"), [*((kind, "sdpa") for kind in PACKING), ("llama", "eager"), ("gpt2", "eager")]
)
def test_every_kind_that_packs_keeps_rows_apart(kind: str, attention: str) -> None:
    """Logits of two rows in one are those of the rows alone; and it would show if they were not."""
    model = random_model(kind, attention)
    rows = [torch.randint(1, 64, (1, count), generator=torch.Generator().manual_seed(count)) for count in (7, 5)]
    alone = torch.cat([model(row, use_cache=False).logits for row in rows], 1)
    places = torch.cat([torch.arange(7), torch.arange(5)])[None]
    joined = model(torch.cat(rows, 1), position_ids=places, use_cache=False).logits
    mixed = model(torch.cat(rows, 1), use_cache=False).logits
    assert (joined - alone).abs().max() < 1e-4
    assert (mixed - alone).abs().max() > 1e-2


def settings(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny-town", "data": {"source": "people-questions", "packing": True}} | changes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": "sequence_classification", "data": {"source": "topics", "packing": True}}, "a class belongs"),
        ({"method": {"name": "prompt_tuning"}}, "before every row"),
        ({"method": {"name": "prefix_tuning"}}, "before every row"),
        ({"method": {"name": "feature_extraction"}}, "no padding to save"),
    ],
)
def test_what_packing_does_not_go_with_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        plan_for(settings(**changes))
    assert [problem.field for problem in refused.value.problems] == ["data.packing"]
    assert why in refused.value.problems[0].message and "set data.packing to false" in refused.value.problems[0].message


def test_a_kind_that_mixes_packed_rows_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from support.tiny_models import tiny_tokenizer

    tiny_tokenizer(tmp_path)
    sizes = {"hidden_size": 32, "ffn_dim": 48, "word_embed_proj_dim": 32, "num_hidden_layers": 2}
    config = AutoConfig.for_model("opt", vocab_size=64, num_attention_heads=4, max_position_embeddings=64, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    data = {"source": "people-questions", "packing": True, "max_seq_length": 32}
    with pytest.raises(SettingsError, match="lets packed rows see each other"):
        plan_for({"model": str(tmp_path), "data": data})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_estimate_of_a_packed_run_is_what_it_takes(method: str, tmp_path: Path) -> None:
    """One window a run, so that the rows it draws are the longest of all, as the estimate takes them to be."""
    data = {"source": "passages", "packing": True, "train_rows": 12}
    plan = plan_for(
        settings(method={"name": method}, micro_batch_size=12, gradient_accumulation_steps=1, max_steps=6, data=data)
    )
    make_tables([usage_of(plan).workloads[0]])
    found, peak = estimate(usage_of(plan)), measured_peak(plan, tmp_path)
    assert found.kind == "traced"
    assert abs(found.total_bytes - peak) <= 0.03 * peak
