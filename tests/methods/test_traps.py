"""Traps that are silent: gradients lost after an evaluation, features that are not what they stand for, memory kept."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest

from support.method_matrix import CLASSES, LLAMA, MatrixJobs, Row
from support.tiny_jobs import run, series

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return MatrixJobs(tmp_path_factory.mktemp("traps"))


def gradient(built, rows):
    from tuning.training.loss import batch_logits, sum_loss

    built.model.train()
    batch = built.batch(rows)
    sum_loss(batch_logits(built.model, batch, classes=False), batch).backward()
    found = {name: w.grad.clone() for name, w in built.model.named_parameters() if w.grad is not None}
    built.optimizer.zero_grad(set_to_none=True)
    return found


def test_four_bit_layers_keep_their_gradients_after_an_evaluation(world) -> None:
    import bitsandbytes

    from support.method_matrix import built_for
    from tuning.training.evaluate import evaluate

    job = world.of(Row(method={"name": "qlora", "r": 4}))
    built, rows = built_for(job), encoded(job)[:4]
    with torch.no_grad():
        for weight in built.trainable:
            weight.add_(0.02)
    layers = [module for module in built.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14 and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    before = gradient(built, rows)
    assert evaluate(built, rows, batch_size=4) is not None
    after = gradient(built, rows)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(
    "avx512_bf16" not in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""),
    reason="this processor lacks AVX512-BF16, so the trap cannot spring here; the guard itself is tested above",
)
def test_without_the_guard_the_trap_is_there() -> None:
    """If this fails, the library has been mended and the guard can go."""
    import bitsandbytes

    def input_gradient(evaluated: bool):
        torch.manual_seed(0)
        layer = bitsandbytes.nn.Linear4bit(256, 256, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
        layer = layer.to("cpu").train()
        seen = torch.randn(4, 256, dtype=torch.bfloat16)
        if evaluated:
            with torch.no_grad():
                layer.eval()(seen)
            layer.train()
        seen.requires_grad_(True)
        out = layer(seen)
        if out.requires_grad:
            out.sum().backward()
        return seen.grad

    right, wrong = input_gradient(False), input_gradient(True)
    assert right is not None and float(right.float().norm()) > 0
    assert wrong is None or not torch.allclose(right.float(), wrong.float(), rtol=0.1)


def encoded(job):
    from tuning.data import encode_set, open_data
    from tuning.text import TextTokenizer

    settings = job.plan.settings
    data = open_data(settings.data, settings.task, settings.seed)
    return list(encode_set(data.train, TextTokenizer(job.plan.model.path), settings.data, settings.task))


@pytest.fixture(scope="module")
def even(world):
    """Rows of equal length, so that every micro-batch has the same shape."""
    import json

    lines = [json.loads(line) for line in world.rows.read_text(encoding="utf-8").splitlines()]
    texts = [" ".join((line["text"].split() * 6)[:6]) for line in lines]
    file = world.rows.with_name("even.jsonl")
    file.write_text(
        "\n".join(
            json.dumps({"prompt": f"{text} :", "completion": f" {line['label']}", "text": text, "label": line["label"]})
            for text, line in zip(texts[:64], lines, strict=False)
        ),
        encoding="utf-8",
    )
    return file


@pytest.mark.parametrize("task", ["causal_lm", CLASSES])
def test_cached_features_give_the_same_curve_bit_for_bit(world, even, task) -> None:
    curves, passes = [], []
    for cache in (True, False):
        row = Row(method={"name": "feature_extraction", "cache": cache}, task=task)
        data = {"source": str(even), "eval_fraction": 0.25}
        job = world.of(row, max_steps=30, micro_batch_size=4, gradient_accumulation_steps=2, data=data)
        count = counted_passes(job)
        curves.append(series(count[1]) + series(count[1], kind="eval"))
        passes.append(count[0])
    assert curves[0] == curves[1]
    assert passes[0] == 48 + 16, "each row goes through the body once"
    assert passes[1] > 3 * passes[0]


def counted_passes(job):
    """Rows that went through the body, and the events."""
    from transformers.models.llama.modeling_llama import LlamaModel

    seen = {"rows": 0}
    real = LlamaModel.forward

    def counting(self, input_ids=None, **more):
        seen["rows"] += len(input_ids)
        return real(self, input_ids=input_ids, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaModel, "forward", counting)
        state, events = run(job)
    assert state == "finished", events[-1].data
    return seen["rows"], events


def test_a_random_body_is_another_body_under_the_same_head(world) -> None:
    from support.method_matrix import built_for

    real, control = (
        built_for(world.of(Row(method={"name": "feature_extraction", "random_body": random}))).model
        for random in (False, True)
    )
    assert torch.equal(real.lm_head.weight, control.lm_head.weight)
    assert not torch.equal(real.model.layers[0].mlp.up_proj.weight, control.model.layers[0].mlp.up_proj.weight)


@pytest.mark.slow
def test_ten_runs_in_a_row_leave_the_process_as_it_was(world) -> None:
    kinds = [{"name": name} for name in ("full", "lora", "feature_extraction", "prefix_tuning", "adapter")]

    def round_of_runs() -> float:
        for method in kinds:
            assert run(world.of(Row(method=method, model=LLAMA), max_steps=2, eval={"every": None}))[0] == "finished"
        gc.collect()
        return psutil.Process().memory_info().rss

    round_of_runs()
    first = round_of_runs()
    assert round_of_runs() < 1.05 * first
    assert not [thing for thing in gc.get_objects() if type(thing).__module__ == "tuning.training.session"]
