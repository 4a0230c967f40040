"""Several devices, by arithmetic: shares fall with their number, and add up where they can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.devices import measured
from bench.memory import given
from bench.memory_models import make_models
from support.memory_peaks import GPT2, config_folder
from tuning.cli import main
from tuning.core.errors import SettingsError
from tuning.core.hardware import named_device
from tuning.memory.multi_device import DATA_PARALLEL, FULLY_SHARDED, device_shares
from tuning.memory.usage import MemoryUsage, usage_of
from tuning.plan.plan import plan_for

CARD = named_device("RTX 4090 24 GB")
SEVEN_B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> MemoryUsage:
    """Seven billion weights, all trained."""
    folder = config_folder(tmp_path_factory.mktemp("models") / "seven", SEVEN_B)
    return usage_of(plan_for({"model": folder, "method": {"name": "full"}, "micro_batch_size": 1}), CARD, make=True)


def by_way(usage: MemoryUsage, count: int) -> dict[str, int]:
    return {share.way: share.total_bytes for share in device_shares(usage, count)}


def test_one_device_is_the_estimate_itself(full: MemoryUsage) -> None:
    assert set(by_way(full, 1).values()) == {full.peak_of_run()}


def test_data_parallel_adds_buckets_as_large_as_the_gradients(full: MemoryUsage) -> None:
    weights = full.plan.value("total_parameters")
    assert weights == pytest.approx(6.74e9, rel=0.01)
    assert {by_way(full, count)[DATA_PARALLEL] for count in (2, 8, 64)} == {full.peak_of_run() + 4 * weights}


def test_sharding_shares_out_what_lasts_and_keeps_a_unit_whole(full: MemoryUsage) -> None:
    """16 bytes a weight in fp32 with AdamW, an n-th on each; whole: two blocks and the ends, and a unit's gradients."""
    totals = [by_way(full, count)[FULLY_SHARDED] for count in (2, 4, 8, 64)]
    assert totals == sorted(totals, reverse=True) and totals[0] < full.peak_of_run()
    weights, block, ends = full.plan.value("total_parameters"), 4 * 202_383_360, 4 * 2 * 32000 * 4096
    passing = totals[-1] - 16 * weights // 64 - ends - 2 * block - max(block, ends)
    assert 0 < passing < 0.02 * 16 * weights
    saved = totals[0] - totals[1]
    assert saved == pytest.approx(16 * weights / 4, rel=0.02)


def test_a_card_that_cannot_hold_it_alone_can_in_a_group(full: MemoryUsage) -> None:
    fits = {count: {share.way: share.fits for share in device_shares(full, count)} for count in (1, 8)}
    assert fits[1] == {DATA_PARALLEL: False, FULLY_SHARDED: False}
    assert fits[8] == {DATA_PARALLEL: False, FULLY_SHARDED: True}


def test_the_command_line_answers_for_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"model": config_folder(tmp_path / "gpt2", GPT2)}), encoding="utf-8")
    assert main(["estimate", str(file), "--device", "t4 16 gb", "--devices", "4"]) == 0
    answer = json.loads(capsys.readouterr().out)["on_several"]
    assert [share["way"] for share in answer] == [DATA_PARALLEL, FULLY_SHARDED]
    assert all(share["devices"] == 4 and share["fits"] and share["effective_batch"] == 4 * 32 for share in answer)
    assert main(["estimate", str(file), "--devices", "0"]) == 2
    assert json.loads(capsys.readouterr().out)["problems"][0]["limit"] == "1 to 1024"


def test_a_number_of_devices_that_is_out_of_range_is_refused(full: MemoryUsage) -> None:
    with pytest.raises(SettingsError, match="1 to 1024"):
        device_shares(full, 4096)


@pytest.mark.slow
def test_torch_itself_takes_on_one_of_several_what_was_counted(tmp_path: Path) -> None:
    """Our loop under torch's own sharing. At the loss it is exact; in a layer what is whole is counted at its most."""
    models = make_models(tmp_path, ("llama", "gemma"))
    kinds = [("llama", "full", 4, 2), ("llama", "lora", 4, 1), ("gemma", "full", 1, 1), ("llama", "full", 1, 1)]
    cases = [given(models[kind], kind, {"name": name}, rows=rows, steps=n) for kind, name, rows, n in kinds]
    lines = list(measured([case for case in cases if case is not None], counts=(8,)))
    assert len(lines) == 8
    for line in lines:
        at_a_layer = line["way"] == FULLY_SHARDED and line["what"] == "llama full 1 x 1"
        high = 1.05 if at_a_layer else 1.002
        assert 0.998 < line["estimated"] / line["peak"] < high, line
