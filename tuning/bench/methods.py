"""Every method on the bundled task: trained parameters, memory, loss, time, and what the model has not forgotten.

There are two tables. The first runs each method once at its defaults on the labelled reviews, as text; "kept" is the
share of answers of the retention set that are still right, where the base is measured the same way. The second
compares an epoch with cached and with recomputed features, in CPU seconds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tuning.bench.measure import finished, markdown
from tuning.methods import METHODS, method_named
from tuning.plan.plan import Plan, plan_for
from tuning.runs.events import Event

TARGET = 0.2
"""Evaluation loss, nats a label token, that counts as having learned the task."""
STEPS = 60
COMMON: dict[str, Any] = {
    "data": {"source": "reviews"},
    "micro_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "max_steps": STEPS,
    "eval": {"every": 5, "metrics": ["token_accuracy"]},
    "device": "cpu",
}


def table(repeats: int) -> str:
    """Measure and draw both tables; the first is one run a method, the second the median of `repeats`."""
    return f"{_methods()}\n{_features(repeats)}"


def _methods() -> str:
    lines = [["(base model)", "", "", "", f"{_retained(None, None):.2f}", "", ""]]
    for method in METHODS:
        if method.name == "retrieval":  # the reviews bring no passages with them: `bench retrieval`
            continue
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_for(COMMON | {"method": {"name": method.name}})
            events, seconds = _run(plan, Path(folder))
            lines.append(_line(plan, events, seconds, Path(folder)))
    title = f"Each method at its defaults, {STEPS} updates of 16 reviews; loss {TARGET:g} counts as learned"
    head = ["method", "trained", "share", "measured peak, MiB", "kept", "eval loss", f"CPU s to loss {TARGET:g}"]
    return markdown(title, head, lines)


def _line(plan: Plan, events: list[Event], seconds: list[tuple[int, float]], folder: Path) -> list[str]:
    name = plan.settings.method.name
    evals = [(event.data["step"], event.data["loss"]) for event in events if event.kind == "eval"]
    peak = max(event.data.get("peak_bytes") or 0 for event in events)
    reached = next((step for step, loss in evals if loss is not None and loss <= TARGET), None)
    spent = "not reached" if reached is None else f"{next(used for step, used in seconds if step >= reached):.1f}"
    retained = f"{_retained(plan, folder):.2f}" if method_named(name).updates else ""
    return [
        name,
        f"{plan.value('trainable_parameters'):,}",
        f"{100 * plan.value('trainable_share'):.2f} %",
        f"{peak / 2**20:.1f}",
        retained,
        f"{evals[-1][1]:.3f}",
        spent,
    ]


def _run(plan: Plan, folder: Path) -> tuple[list[Event], list[tuple[int, float]]]:
    """The events, and the CPU seconds spent up to each evaluation."""
    seconds: list[tuple[int, float]] = []
    began = time.thread_time()

    def on_event(event: Event) -> None:
        if event.kind == "eval":
            seconds.append((event.data["step"], time.thread_time() - began))

    return finished(plan, folder, on_event), seconds


def _retained(plan: Plan | None, folder: Path | None) -> float:
    """The share of the retention set that the trained model answers right; the base model without a plan.

    The end of text after an answer is not compared: the base never learned to stop there, and any training teaches it.
    """
    import torch

    from tuning.data import encode_set, open_data
    from tuning.text import TextTokenizer
    from tuning.training.build import Built, load_base
    from tuning.training.evaluate import evaluate

    retention = plan_for({"data": {"source": "retention"}})
    settings, base = retention.settings, retention.model.path
    tokenizer = TextTokenizer(base)
    rows = encode_set(open_data(settings.data, settings.task, 0).eval, tokenizer, settings.data, settings.task)
    model: Any = load_base(
        base, class_names=None, attention="sdpa", dtype=torch.float32, pad_id=tokenizer.pad_id or 0
    ).eval()
    if plan is not None and folder is not None:
        method = method_named(plan.settings.method.name)
        model = method.load(model, folder / method.artifact)
    idle = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], 0.0)
    built = Built(
        model=model,
        optimizer=idle,
        trainable=[],
        device=torch.device("cpu"),
        pad_id=tokenizer.pad_id or 0,
        classes=False,
        autocast_dtype=None,
    )
    evaluation = evaluate(built, list(rows), batch_size=32)
    assert evaluation is not None
    right = [prediction.predicted[:-1] == prediction.target[:-1] for prediction in evaluation.predictions]
    return sum(right) / len(right)


def _features(repeats: int) -> str:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for cache, spent in seconds.items():
            short, long = (_epochs(cache, count) for count in (1, 4))
            spent.append((long - short) / 3)
    recomputed, cached = statistics.median(seconds[False]), statistics.median(seconds[True])
    lines = [
        ["recomputed", f"{recomputed:.3f}", "1.0x"],
        ["cached", f"{cached:.3f}", f"{recomputed / cached:.1f}x"],
    ]
    return markdown(f"Feature extraction: CPU s an epoch of the reviews, median of {repeats}", ["", "s", "gain"], lines)


def _epochs(cache: bool, count: int) -> float:
    """CPU seconds of a whole run; the start, which both have, cancels in the difference of two."""
    plan = plan_for(
        {
            "task": "sequence_classification",
            "data": {"source": "reviews", "eval_rows": 8},
            "micro_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "num_epochs": count,
            "eval": {"every": None},
            "device": "cpu",
            "method": {"name": "feature_extraction", "cache": cache},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.thread_time()
        _run(plan, Path(folder))
        return time.thread_time() - began
