"""Where no table can be made: why is told in words, and what a run takes lies inside the wider band."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.ragged import MODELS
from tuning.memory.estimate import estimate
from tuning.memory.process_overhead import BANDS
from tuning.memory.tracing.build_table import build_table, reason_of
from tuning.memory.tracing.layers import UntraceableError, layers_of, with_defaults
from tuning.memory.tracing.table_cache import make_table
from tuning.memory.usage import usage_of
from tuning.memory.workload import Workload, workload_of
from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.plan.plan import Plan, plan_for

CLASSES = ("bert", "distilbert")
CASES = [(kind, method, 64) for kind in MODELS for method in ("full", "lora") if (kind, method) != ("opt", "lora")]
CASES += [(kind, "full", 256) for kind in ("gpt2", "bert", "distilbert", "phi3", "opt")]


def plan_of(folder: Path, kind: str, method: str, **changes: Any) -> Plan:
    """A plan on a folder with nothing but a config.json of this kind."""
    import transformers

    folder.mkdir()
    transformers.AutoConfig.for_model(kind, **MODELS[kind]).save_pretrained(folder)
    classes = kind in CLASSES
    task = "sequence_classification" if classes else "causal_lm"
    data = {"source": "topics" if classes else "reviews", "max_seq_length": 128}
    settings = {"model": str(folder), "task": task, "method": {"name": method}, "data": data, "device": "cpu"}
    return plan_for(settings | {"micro_batch_size": 8} | changes)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method", "length"), CASES)
def test_the_band_of_the_formula_holds_what_the_trace_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str, length: int
) -> None:
    """As if the trace had failed: what it would have said stays between the edges, of updates and evaluations."""
    data = {"source": "topics" if kind in CLASSES else "chats", "max_seq_length": length}
    plan = plan_of(tmp_path / kind, kind, method, data=data)
    exact = estimate(usage_of(plan, make=True))
    assert exact.kind == "traced"
    monkeypatch.setattr("tuning.memory.usage.find_table", lambda workload: None)
    rough, band = estimate(usage_of(plan)), BANDS["approximate", "cpu"]
    assert rough.kind == "approximate"
    assert band.low * rough.total_bytes <= exact.total_bytes <= band.high * rough.total_bytes
    assert band.low * rough.evaluation_bytes <= exact.evaluation_bytes <= band.high * rough.evaluation_bytes


@pytest.mark.parametrize("method", ["full", "lora"])
def test_distilbert_is_traced(tmp_path: Path, method: str) -> None:
    """Its config.json names its layers as no other does: the trace ended in StopIteration, and the formula was 13 %
    too low."""
    plan = plan_of(tmp_path / "distilbert", "distilbert", method)
    table = make_table(workload_of(plan))
    assert table is not None and table.layers == MODELS["distilbert"]["n_layers"]
    assert table.counts(workload_of(plan).rank)[0] == plan.value("trainable_parameters")


@pytest.fixture
def of_positions(tmp_path: Path) -> Callable[[int], Workload]:
    """Subjects of a roberta with places for so many tokens; two more are its padding's."""

    def made(count: int) -> Workload:
        import transformers

        folder, size = tmp_path / str(count), MODELS["bert"] | {"max_position_embeddings": count + 2, "pad_token_id": 1}
        folder.mkdir()
        transformers.AutoConfig.for_model("roberta", **size).save_pretrained(folder)
        data = {"source": "topics", "max_seq_length": 8}
        settings = {"model": str(folder), "task": "sequence_classification", "method": {"name": "full"}, "data": data}
        return workload_of(plan_for(settings | {"device": "cpu"}))

    return made


@pytest.mark.parametrize("positions", [8, 64])
def test_a_trace_stays_inside_the_positions_that_a_model_has(
    of_positions: Callable[[int], Workload], positions: int
) -> None:
    """With rows of 112 it ended in `index 66 is out of bounds`; what shorter ones say is what longer ones say."""
    few, many = build_table(of_positions(positions)), build_table(of_positions(512))
    for rows in (1, 8):
        shape = BatchShape(rows=rows, length=positions, label_tokens=rows, padded=rows > 1)
        candidate = PeakCandidate(shape=shape, accumulate=True)
        (short, point), (long, same) = few.block(shape).peak(candidate, None), many.block(shape).peak(candidate, None)
        assert point == same
        assert (short["activations"], short["logits"]) == (long["activations"], long["logits"])


def test_a_config_that_says_nothing_of_its_layers_is_reported_in_words() -> None:
    with pytest.raises(UntraceableError) as caught:
        layers_of({"hidden_size": 32})
    assert reason_of(caught.value).startswith("its config.json does not say how many layers it has")


@pytest.mark.parametrize("error", [StopIteration(), KeyError("n_layer"), ValueError("size 3 and size 4 differ")])
def test_every_failure_has_words(error: Exception) -> None:
    reason = reason_of(error)
    assert reason.rstrip(":. ") == reason and len(reason.split()) >= 2 and type(error).__name__ in reason


@pytest.mark.parametrize("kind", [*MODELS, "gemma2", "olmo2", "roberta"])
def test_the_depth_of_every_kind_is_found(tmp_path: Path, kind: str) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(kind).to_dict()
    plain = {name: value for name, value in config.items() if name != "dtype"}
    assert layers_of(with_defaults(plain)) == transformers.AutoConfig.for_model(kind).num_hidden_layers
