"""What a run takes between its updates, against what its evaluations and its written answers really took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.memory import given
from bench.memory_models import make_models
from support.memory_peaks import measured_peak
from support.tiny_models import ENCODERS, SMALL, tiny_model
from tuning.core.quantities import size_text
from tuning.memory.estimate import estimate
from tuning.memory.evaluation import FLOAT, HALF
from tuning.memory.process_overhead import MIB
from tuning.memory.tracing.table_cache import untraceable
from tuning.memory.usage import usage_of
from tuning.memory.what_if import what_if
from tuning.models.families import family_of
from tuning.plan.plan import Plan, plan_for
from tuning.training import scores, session
from tuning.training.build import Built
from tuning.training.features import FeatureCache
from tuning.training.probes import Meter, metered
from tuning.training.session import Session
from tuning.ui import memory_bar as charts

CASES = [
    ("llama", {"name": "full"}, {"rows": 1, "attention": "eager"}),
    ("gpt2", {"name": "lora"}, {"rows": 1, "precision": "autocast_bf16"}),
    ("gpt2", {"name": "full"}, {"rows": 1, "precision": "autocast_bf16"}),
    ("qwen2", {"name": "feature_extraction"}, {"rows": 1}),
    ("bert", {"name": "full"}, {"rows": 1}),
]


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The real evaluations, fillings of a cache and writings of a run, each measured by torch's allocator."""
    peaks_by_kind = {"evaluation": 0, "generation": 0, "sample": 0}

    @contextmanager
    def measured(kind: str, built: Built, base_bytes: int = 0) -> Iterator[None]:
        with metered(built.model, built.optimizer, built.device) as meter:
            yield
        peaks_by_kind[kind] = max(peaks_by_kind[kind], (meter.peak_bytes or 0) + base_bytes)

    def around(kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(built: Built, *args: Any, **changes: Any) -> Any:
            with measured(kind, built, built.features.bytes if built.features else 0):
                return work(built, *args, **changes)

        return watched

    fill = FeatureCache.fill

    def filled(self: FeatureCache, *args: Any) -> Iterator[int]:
        before = self.bytes
        with metered(self._model, None, self._device) as meter:
            done = list(fill(self, *args))
        peaks_by_kind["evaluation"] = max(peaks_by_kind["evaluation"], (meter.peak_bytes or 0) + before)
        yield from done

    ask = Session._sample

    def sample(self: Session, built: Built) -> None:
        with measured("sample", built):
            ask(self, built)

    monkeypatch.setattr(Session, "_sample", sample)
    monkeypatch.setattr(FeatureCache, "fill", filled)
    monkeypatch.setattr(scores, "evaluate", around("evaluation", scores.evaluate))
    monkeypatch.setattr(scores, "write_answers", around("generation", scores.write_answers))
    return peaks_by_kind


def held_out(plan: Plan, fraction: float = 0.4) -> Plan:
    """The plan with many of the rows held out, and no evaluation between the first and the last."""
    settings = plan.settings.to_dict()
    return plan_for(settings | {"data": settings["data"] | {"eval_fraction": fraction}, "max_steps": 2})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method", "changes"), CASES)
def test_an_evaluation_takes_what_was_estimated(
    tmp_path: Path, peaks: dict[str, int], kind: str, method: dict[str, Any], changes: dict[str, Any]
) -> None:
    settings = given(make_models(tmp_path, (kind,))[kind], kind, method, **changes)
    plan = held_out(plan_for(settings))
    figures = estimate(usage_of(plan, make=True))
    assert figures.kind == "traced", untraceable(usage_of(plan).workloads[0])
    measured_peak(plan, tmp_path / "run")
    assert figures.evaluation_bytes == pytest.approx(peaks["evaluation"], rel=0.01, abs=MIB // 4)


@pytest.mark.slow
def test_a_batch_is_gone_before_the_next_one(tmp_path: Path, peaks: dict[str, int]) -> None:
    """Logits of one batch that live beside the pass of the next would add a megabyte here."""
    data = {"source": "people-questions", "max_seq_length": 16, "train_rows": 40}
    plan = plan_for({"max_steps": 1, "device": "cpu", "data": data, "eval": {"every": None}})
    assert plan.data.eval_rows > plan.evaluation_batch_size()
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.evaluation_bytes == pytest.approx(peaks["evaluation"], rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "held_out"), [(12, 120), (120, 12)])
def test_held_out_rows_count_as_long_as_they_are(
    tmp_path: Path, peaks: dict[str, int], trained: int, held_out: int
) -> None:
    """Longer or shorter than those trained on, with labels in some alone: the widest batch of them, exactly."""
    for split, words, count in (("train", trained, 12), ("validation", held_out, 80)):
        rows = [
            {"prompt": "the old town " * (words // 3 - n % 3), "completion": " winter" * (1 + 3 * (n % 4))}
            for n in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = {"source": str(tmp_path), "max_seq_length": 256}
    plan = plan_for(
        {"data": data, "method": {"name": "full"}, "max_steps": 1, "device": "cpu", "eval": {"every": None}}
    )
    assert len(plan.data.eval_lengths) == plan.data.eval_rows == 80
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.evaluation_bytes == pytest.approx(peaks["evaluation"], rel=0.005)


@pytest.mark.slow
def test_the_states_of_a_frozen_body_count_where_nothing_is_evaluated(tmp_path: Path, peaks: dict[str, int]) -> None:
    row = json.dumps({"prompt": "the old river " * 30, "completion": "winter"})
    (tmp_path / "train.jsonl").write_text("\n".join([row] * 12), encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text(json.dumps({"prompt": "Who?", "completion": ""}), encoding="utf-8")
    settings = {"data": {"source": str(tmp_path)}, "method": {"name": "feature_extraction"}, "max_steps": 1}
    plan = plan_for(settings | {"device": "cpu"})
    assert plan.data.eval_rows == 0
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.evaluation_bytes == pytest.approx(peaks["evaluation"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"),
    [("qwen2", "fp32"), ("gpt2", "autocast_bf16"), ("phi3", "autocast_bf16"), ("olmo2", "autocast_bf16")],
)
def test_writing_answers_takes_what_was_estimated(
    tmp_path: Path, peaks: dict[str, int], kind: str, precision: str
) -> None:
    """The run's highest moment, here."""
    model = make_models(tmp_path, (kind,))[kind]
    rows = [json.dumps({"prompt": "the old town and the river " * 20, "completion": "winter"})] * 20
    (tmp_path / "asked.jsonl").write_text("\n".join(rows), encoding="utf-8")
    plan = plan_for(
        {
            "model": model,
            "method": {"name": "lora"},
            "micro_batch_size": 1,
            "max_steps": 1,
            "device": "cpu",
            "data": {"source": str(tmp_path / "asked.jsonl"), "max_seq_length": 32, "eval_fraction": 0.4},
            "eval": {"every": None, "metrics": ["token_accuracy", "exact_match"], "max_new_tokens": 128},
            "precision": precision,
        }
    )
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.generation_bytes == pytest.approx(peaks["generation"], rel=0.05)
    assert figures.generation_bytes > max(figures.total_bytes, figures.evaluation_bytes)
    silent = plan_for(plan.settings.to_dict() | {"eval": {"every": None}})
    assert estimate(usage_of(silent)).generation_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "longest"),
    [({"name": "retrieval", "top_k": 8}, 392), ({"name": "prompt_engineering", "shots": 16}, 314)],
)
def test_prompts_that_a_method_writes_take_what_was_estimated(
    tmp_path: Path, method: dict[str, Any], longest: int
) -> None:
    """Many times as long as the rows, and not cut at max_seq_length; such a run measures its evaluation."""
    settings = {"data": {"source": "people-questions", "max_seq_length": 64}, "method": method, "device": "cpu"}
    plan = plan_for(settings)
    assert plan.value("prompted_length") == longest > 10 * plan.value("widest_length")
    assert plan.derived["prompted_length"].origin.startswith("the longest of ")
    figures = estimate(usage_of(plan, make=True))
    assert figures.kind == "traced" and figures.total_bytes == figures.evaluation_bytes
    assert figures.total_bytes == pytest.approx(measured_peak(plan, tmp_path / "run"), rel=0.002)
    asking = plan_for(settings | {"eval": {"metrics": ["exact_match"]}})
    assert longest - 16 < asking.value("answered_length") < longest
    cut = plan_for(settings | {"data": settings["data"] | {"max_seq_length": 16}})
    assert estimate(usage_of(cut)).evaluation_bytes == figures.evaluation_bytes


def test_writing_answers_to_prompts_that_training_cuts_takes_what_was_estimated(
    tmp_path: Path, peaks: dict[str, int]
) -> None:
    rows = [json.dumps({"prompt": "the old town and the river " * 25, "completion": "winter"})] * 20
    (tmp_path / "asked.jsonl").write_text("\n".join(rows), encoding="utf-8")
    settings = {
        "method": {"name": "lora"},
        "max_steps": 1,
        "device": "cpu",
        "data": {"source": str(tmp_path / "asked.jsonl"), "max_seq_length": 16, "eval_fraction": 0.4},
        "eval": {"every": None, "metrics": ["exact_match"]},
    }
    plan = plan_for(settings)
    assert plan.value("widest_length") == 16 < 100 < plan.value("answered_length")
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.generation_bytes == pytest.approx(peaks["generation"], rel=0.05)
    assert figures.evaluation_bytes < figures.generation_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "source"), [("causal_lm", "people-questions"), ("sequence_classification", "reviews")]
)
def test_sample_prompts_count_however_short_the_rows_are(
    tmp_path: Path, peaks: dict[str, int], task: str, source: str
) -> None:
    data = {"source": source, "max_seq_length": 16, "train_rows": 40}
    settings = {"task": task, "max_steps": 1, "device": "cpu", "data": data, "eval": {"every": None}}
    assert estimate(usage_of(plan_for(settings))).generation_bytes == 0
    plan = plan_for(settings | {"sample": {"prompts": ["Who?", "The river is old. " * 80]}})
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert figures.generation_bytes == pytest.approx(peaks["sample"], rel=0.05)


def test_the_verdict_counts_an_evaluation_that_takes_more_than_training() -> None:
    """One row at a time in training, many in an evaluation: what fits is what holds the larger one."""
    settings = {"method": {"name": "lora"}, "micro_batch_size": 1}
    plan, short = plan_for(settings), plan_for(settings | {"data": {"source": "reviews", "eval_rows": 1}})
    figures, alone = estimate(usage_of(plan, make=True)), estimate(usage_of(short))
    assert figures.total_bytes == alone.total_bytes
    assert figures.evaluation_bytes > 1.5 * figures.total_bytes > alone.evaluation_bytes
    between = replace(plan.device, total_bytes=(figures.high_bytes + alone.high_bytes) // 2)
    assert not estimate(usage_of(plan, between)).fits and estimate(usage_of(short, between)).fits
    bars = [charts.memory_bar(other) for other in (figures, estimate(usage_of(plan, between)), alone)]
    assert f"but evaluation takes {size_text(figures.evaluation_bytes)}" in bars[0]["note"]
    assert "but evaluation" not in bars[2]["note"]
    more = {part["name"]: part["bytes"] for part in bars[1]["parts"]}[charts.BETWEEN_UPDATES]
    assert more == figures.evaluation_bytes - figures.total_bytes


def test_without_a_table_the_formula_still_counts_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for({"micro_batch_size": 1, "method": {"name": "full"}})
    exact = estimate(usage_of(plan, make=True))
    monkeypatch.setattr("tuning.memory.usage.find_table", lambda workload: None)
    rough = estimate(usage_of(plan))
    assert rough.kind == "approximate"
    assert 0.55 * exact.evaluation_bytes < rough.evaluation_bytes < 1.6 * exact.evaluation_bytes


@pytest.mark.slow
def test_shorter_prompts_save_in_a_real_run_what_was_offered(tmp_path: Path) -> None:
    """The fix that a run without updates is offered, applied and measured."""
    settings = {"data": {"source": "people-questions"}, "method": {"name": "retrieval", "top_k": 8}, "device": "cpu"}
    long = plan_for(settings)
    estimate(usage_of(long, make=True))
    (fix,) = (fix for fix in what_if(usage_of(long))["fixes"] if "method" in fix["settings"])
    shorter = plan_for(settings | fix["settings"])
    saved = measured_peak(long, tmp_path / "long") - measured_peak(shorter, tmp_path / "shorter")
    assert fix["saved_bytes"] == pytest.approx(saved, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["refusal", "certainty"])
def test_rows_that_a_recipe_rewrites_count_as_long_as_they_may_become(
    tmp_path: Path, peaks: dict[str, int], form: str
) -> None:
    """An update's rows, and the held-out ones; how long they become shows when the base has answered: never longer."""
    data = {"source": "people-questions", "train_rows": 32, "eval_rows": 12}
    settings = {"data": data, "method": {"name": "full"}, "micro_batch_size": 32, "gradient_accumulation_steps": 1}
    settings |= {"max_steps": 2, "device": "cpu"}
    plain = plan_for(settings)
    plan = plan_for(settings | {"recipe": {"name": "r_tuning", "form": form}, "eval": {"max_new_tokens": 8}})
    assert plan.value("widest_length") > plain.value("widest_length") and plan.fingerprint != plain.fingerprint
    assert "recipe" in plan.derived["widest_length"].origin
    figures = estimate(usage_of(plan, make=True))
    peak = measured_peak(plan, tmp_path / "run")
    # rows that a recipe writes are known by their longest form alone, so the widest batch is taken, not the run's own
    assert 0.999 * peak <= figures.total_bytes <= 1.05 * peak
    assert figures.evaluation_bytes == pytest.approx(peaks["evaluation"], rel=0.01)


def test_questions_to_the_base_model_take_what_was_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of conflict_aware, answered one by one before the evaluation."""
    write, asking = session.prompted_rows, Meter()

    def written(plan: Plan, data: Any, method: Any, model: Any, *args: Any, **named: Any) -> Any:
        with metered(model, None, next(model.parameters()).device) as meter:
            rows = write(plan, data, method, model, *args, **named)
        asking.peak_bytes = meter.peak_bytes
        return rows

    monkeypatch.setattr(session, "prompted_rows", written)
    method = {"name": "retrieval", "top_k": 8, "policy": "conflict_aware"}
    data = {"source": "people-questions", "eval_rows": 5}
    plan = plan_for({"data": data, "method": method, "eval": {"max_new_tokens": 12}, "device": "cpu"})
    figures = estimate(usage_of(plan, make=True))
    assert figures.total_bytes == pytest.approx(measured_peak(plan, tmp_path / "run"), rel=0.01)
    assert figures.generation_bytes == pytest.approx(asking.peak_bytes, rel=0.05)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ENCODERS])
def test_keys_and_values_are_kept_in_as_many_bits_as_counted(tmp_path: Path, kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model(kind, tmp_path / kind)).eval()
    past = None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for count in (4, 1):  # prompt, then one token put behind it
            past = model(torch.ones((2, count), dtype=torch.long), past_key_values=past, use_cache=True).past_key_values
    sizes = {cache.element_size() for cache in (past.layers[0].keys, past.layers[0].values)}
    assert sizes == {HALF if family_of(kind).half_cache else FLOAT}


@pytest.mark.slow
def test_a_sample_of_a_bf16_run_is_never_taken_for_less_than_it_is(tmp_path: Path, peaks: dict[str, int]) -> None:
    """It is computed in fp32, keys and values too."""
    sample = {"prompts": ["the old town and the river " * 20]}
    settings = given(
        make_models(tmp_path, ("gpt2",))["gpt2"], "gpt2", {"name": "lora"}, rows=1, precision="autocast_bf16"
    )
    plan = plan_for((settings or {}) | {"sample": sample, "eval": {"every": None, "max_new_tokens": 200}})
    figures = estimate(usage_of(plan, make=True))
    measured_peak(plan, tmp_path / "run")
    assert peaks["sample"] <= figures.generation_bytes <= 1.17 * peaks["sample"]
