"""What a run does between two updates: evaluation, pause, stop, failure, checkpoints, and what it leaves untouched."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from support.tiers import first_only
from support.tiny_jobs import TinyJobs, run, series
from tuning.training.job import Commands

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


def test_events_of_a_whole_run(jobs):
    state, events = run(jobs.job(max_steps=7))
    assert state == "finished" == events[-1].kind
    assert series(events, "step") == [1, 2, 3, 4, 5, 6, 7]
    assert series(events, "step", "eval") == [0, 3, 6, 7]
    started = next(event for event in events if event.kind == "started")
    assert started.data["total_steps"] == 7
    for key in ("trained_tokens", "input_tokens", "examples", "seconds"):
        values = series(events, key)
        assert values == sorted(values) and values[0] > 0
    assert series(events, "examples") == [8, 16, 24, 32, 40, 48, 56]
    for event in events:
        json.loads(event.to_line())


def test_a_run_learns(jobs):
    losses = series(run(jobs.job(max_steps=60, optimizer={"learning_rate": 1e-2}))[1])
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_same_settings_give_the_same_curve_bit_for_bit_with_another_run_between(jobs):
    changes = {"method": {"name": "lora", "r": 4, "dropout": 0.2}}
    first = series(run(jobs.job(**changes))[1])
    run(jobs.job(seed=5, task="sequence_classification"))
    torch.rand(3)
    assert series(run(jobs.job(**changes))[1]) == first
    assert series(run(jobs.job(seed=1, **changes))[1]) != first


def test_eval_does_not_depend_on_the_batch_size(jobs):
    from tuning.data import encode_set, open_data
    from tuning.text import TextTokenizer
    from tuning.training.build import build
    from tuning.training.evaluate import evaluate

    plan = jobs.job().plan
    settings = plan.settings
    data = open_data(settings.data, settings.task, 0)
    rows = encode_set(data.train, TextTokenizer(plan.model.path), settings.data, settings.task)
    built = build(settings, plan.model.path, None, 1e-3, 0)
    built.model.train()
    evaluations = [evaluate(built, rows, batch_size=size) for size in (1, 4, 8, 64)]
    assert built.model.training
    for other in evaluations[1:]:
        assert other.loss == pytest.approx(evaluations[0].loss, abs=2e-6)
        assert other.metrics == pytest.approx(evaluations[0].metrics, abs=1e-4)
    means = [evaluate(built, [row], batch_size=1).loss for row in rows]
    assert abs(sum(means) / len(means) - evaluations[0].loss) > 1e-3, "a mean of row means would pass unseen"


def test_macro_f1_counts_each_class_alike():
    from tuning.training.evaluate import macro_f1

    assert macro_f1([0, 0, 0, 0], [0, 0, 0, 1]) == pytest.approx((6 / 7 + 0) / 2)


def test_paused_run_equals_an_unpaused_one(jobs):
    changes = {"method": {"name": "lora", "r": 4, "dropout": 0.3}, "max_steps": 8}
    plain = run(jobs.job(**changes))[1]
    commands, answers = Commands(), []

    def on_event(event):
        if event.kind == "step" and event.data["step"] == 3:
            commands.pause()
            commands.ask(lambda model, tokenizer, class_names: answers.append((model.eval(), torch.rand(4))))
            threading.Timer(0.5, commands.unpause).start()

    events = run(jobs.job(**changes), commands, on_event)[1]
    assert [event.kind for event in events].count("paused") == 1
    assert [event.kind for event in events].count("resumed") == 1
    assert answers, "the question was answered"
    assert series(events) == series(plain)
    assert series(events, "grad_norm") == series(plain, "grad_norm")
    assert series(events, "seconds")[-1] < 60


def test_stop_within_a_micro_batch_clears_gradients_and_saves(jobs, monkeypatch):
    from tuning.training import loop

    commands, seen, built_models = Commands(), [], []
    real = loop._backward

    def backward(built, batch, reduction):
        result = real(built, batch, reduction)
        seen.append(1)
        built_models.append(built)
        if len(seen) == 8 * 2 + 3:  # the third micro-batch of the third update
            commands.stop()
        return result

    monkeypatch.setattr(loop, "_backward", backward)
    job = jobs.job(micro_batch_size=1, gradient_accumulation_steps=8, max_steps=50)
    state, events = run(job, commands)
    assert state == "cancelled" == events[-1].kind
    assert len(seen) == 8 * 2 + 3, "not one micro-batch more"
    assert series(events, "step") == [1, 2]
    assert all(weight.grad is None for weight in built_models[-1].trainable)
    assert (Path(job.folder) / "model" / "model.safetensors").is_file()


def test_stop_while_paused_ends_the_run(jobs):
    commands = Commands()

    def on_event(event):
        if event.kind == "step" and event.data["step"] == 2:
            commands.pause()
        if event.kind == "paused":
            threading.Timer(0.1, commands.stop).start()

    began = time.monotonic()
    assert run(jobs.job(max_steps=500), commands, on_event)[0] == "cancelled"
    assert time.monotonic() - began < 20


def test_a_loss_that_is_not_finite_fails_with_the_step_and_keeps_the_weights(jobs, monkeypatch):
    from safetensors.torch import load_file

    from tuning.training import loop

    real, calls = loop.sum_loss, []

    def broken(logits, batch):
        calls.append(1)
        return real(logits, batch) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(loop, "sum_loss", broken)  # two micro-batches an update: breaks in update 4
    job = jobs.job(max_steps=10)
    state, events = run(job)
    assert state == "failed" == events[-1].kind
    assert events[-1].data["step"] == 4 and "4" in events[-1].data["message"]
    assert series(events, "step") == [1, 2, 3]
    monkeypatch.setattr(loop, "sum_loss", real)
    three = jobs.job(max_steps=10)
    commands = Commands()
    run(three, commands, lambda event: commands.stop() if event.kind == "step" and event.data["step"] == 3 else None)
    ours, expected = (load_file(Path(trained.folder) / "model" / "model.safetensors") for trained in (job, three))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_missing_model_fails_with_a_sentence(jobs):
    import shutil

    job = jobs.job()
    shutil.move(jobs.model / "model.safetensors", jobs.folder / "away")
    try:
        state, events = run(job)
    finally:
        shutil.move(jobs.folder / "away", jobs.model / "model.safetensors")
    assert state == "failed" and "model.safetensors is gone" in events[-1].data["message"]


def test_global_state_is_untouched(jobs):
    torch.manual_seed(123)
    before, threads, dtype = torch.random.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(2)
    try:
        run(jobs.job(method={"name": "lora", "r": 4, "dropout": 0.1}, precision="autocast_bf16"))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.get_num_threads() == 2
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_num_threads(threads)


def test_a_later_attempt_goes_on_bit_for_bit(jobs, tmp_path):
    changes = {"save": {"every": 2, "keep": 1}, "max_steps": 9, "method": {"name": "lora", "r": 4, "dropout": 0.2}}
    whole = series(run(jobs.job(**changes))[1])
    commands = Commands()
    first = jobs.job(tmp_path / "run", **changes)
    run(first, commands, lambda event: commands.stop() if event.kind == "step" and event.data["step"] == 5 else None)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    state, events = run(jobs.job(tmp_path / "run", attempt=2, **changes))
    assert state == "finished"
    assert series(events, "step") == [6, 7, 8, 9]
    assert series(events) == whole[5:]
    assert series(run(jobs.job(tmp_path / "run", **changes))[1], "step")[0] == 1, "a first attempt never resumes"


def test_early_stop_and_best_weights(jobs):
    job = jobs.job(
        max_steps=200, optimizer={"learning_rate": 0.1}, eval={"every": 1, "patience": 3}, data={"train_rows": 8}
    )
    state, events = run(job)
    steps, losses = series(events, "step", "eval"), series(events, "loss", "eval")
    best = steps[losses.index(min(losses))]
    assert state == "finished" and steps[-1] == best + 3 < 200
    assert events[-1].data["best"]["step"] == best and "no better" in events[-1].data["reason"]
    assert (Path(job.folder) / "best" / "model" / "model.safetensors").is_file()


def test_bf16_keeps_fp32_master_weights(jobs):
    from safetensors.torch import load_file

    job = jobs.job(precision="autocast_bf16")
    losses = series(run(job)[1])
    plain = series(run(jobs.job())[1])
    saved = load_file(Path(job.folder) / "model" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    assert 0 < max(abs(a - b) for a, b in zip(losses, plain, strict=True)) < 0.05


@pytest.mark.parametrize("method", first_only([{"name": "full"}, {"name": "lora", "r": 4}]), ids=["full", "lora"])
def test_gradient_checkpointing_and_attention_change_no_loss(jobs, method):
    plain = series(run(jobs.job(method=method))[1])
    for changes in ({"gradient_checkpointing": True}, {"attention": "eager"}):
        other = series(run(jobs.job(method=method, **changes))[1])
        assert max(abs(a - b) for a, b in zip(plain, other, strict=True)) < 1e-4


def test_peak_bytes_are_measured_after_the_first_update(jobs):
    peaks = series(run(jobs.job(max_steps=8))[1], "peak_bytes")
    assert peaks[0] is None and all(isinstance(peak, int) for peak in peaks[1:])
    weights = 4 * next(e for e in run(jobs.job(max_steps=1))[1] if e.kind == "started").data["trainable_parameters"]
    assert peaks[-1] > 4 * weights, "weights, gradients and two optimizer values at the least"
    assert peaks[1:] == sorted(peaks[1:])
    sgd = series(run(jobs.job(max_steps=8, optimizer={"name": "sgd"}))[1], "peak_bytes")
    assert sgd[-1] is not None and sgd[-1] < peaks[-1]


def test_schedules():
    from tuning.training.schedule import schedule_factor

    warm = [schedule_factor("cosine", step, 10, 4, 0.0) for step in range(4)]
    assert warm == [0.25, 0.5, 0.75, 1.0]
    assert schedule_factor("cosine", 4, 10, 4, 0.0) == 1.0
    assert schedule_factor("cosine", 7, 10, 4, 0.2) == pytest.approx(0.6)
    assert schedule_factor("linear", 7, 10, 4, 0.0) == pytest.approx(0.5)
    assert schedule_factor("linear", 10, 10, 4, 0.1) == pytest.approx(0.1)
    assert schedule_factor("constant", 9, 10, 4, 0.0) == 1.0
    with pytest.raises(ValueError, match="cosinus"):
        schedule_factor("cosinus", 0, 1, 0, 0.0)


def test_learning_rates_are_those_of_the_schedule_in_updates(jobs):
    job = jobs.job(
        max_steps=4,
        schedule={"name": "linear", "warmup_steps": 2, "min_lr_ratio": 0.5},
        micro_batch_size=1,
        gradient_accumulation_steps=8,
    )
    assert series(run(job)[1], "learning_rate") == pytest.approx([0.0015, 0.003, 0.003, 0.00225])


def test_entry_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, tuning.training.run; print([n for n in ('torch', 'peft', 'gradio') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr


def test_a_bug_is_reported_with_its_traceback(jobs, monkeypatch):
    from tuning.training import scores

    monkeypatch.setattr(scores, "evaluate", lambda *_, **__: 1 / 0)
    state, events = run(jobs.job())
    assert state == "failed" and "ZeroDivisionError" in events[-1].data["traceback"]
