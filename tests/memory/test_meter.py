"""The meter of a run's memory: what it counts, and which updates it is put on."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from support.memory_peaks import GPT2, config_folder
from tuning.core.child_process import Child
from tuning.memory.tracing import table_cache as tables
from tuning.memory.tracing.table_cache import find_table, untraceable
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for
from tuning.text import EncodedRow
from tuning.training.build import build
from tuning.training.evaluate import evaluate
from tuning.training.probes import PeakProbe, allocations, metered


def test_every_allocation_and_release_of_this_thread_is_counted() -> None:
    def elsewhere() -> None:
        torch.empty(5000)

    other = threading.Thread(target=elsewhere)
    with allocations() as changes:
        tensor = torch.empty(1000)
        torch.empty(2000)
        other.start()
        other.join()
    assert changes == [4000, 8000, -8000] and tensor.numel() == 1000
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        tensor.add(1)
    assert any(event.key == "aten::add" for event in profile.key_averages())  # operations are noted again


def test_a_peak_is_what_lived_before_and_the_highest_since() -> None:
    model = torch.nn.Linear(100, 10, bias=False)
    with metered(model, None, torch.device("cpu")) as meter:
        first = torch.empty(1000)
        del first
        torch.empty(500)
    assert meter.peak_bytes == 4 * 1000 + 4 * 1000


def test_what_an_earlier_run_left_is_not_taken_for_a_release() -> None:
    """Tensors of a measured block in a cycle of references, which are collected whenever that happens."""
    model = torch.nn.Linear(10, 100, bias=False)
    gc.disable()
    try:
        with allocations() as changes:
            cycle: list[object] = [torch.empty(3000)]
            cycle.append(cycle)
        assert sum(changes) == 12_000
        del cycle
        with metered(model, None, torch.device("cpu")) as meter:
            gc.collect()
            torch.empty(500)
    finally:
        gc.enable()
    assert meter.peak_bytes == 4 * 1000 + 4 * 500


def test_what_a_library_prints_does_not_come_among_the_tables() -> None:
    code = (
        "from tuning.memory.tracing.build_table import answer_questions\n"
        "def table_of(line):\n"
        "    print('noise of a library')\n"
        "    raise ValueError(line)\n"
        "answer_questions(table_of)\n"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code, "60"], input='"one"\n"two"\n', capture_output=True, text=True, cwd=root
    )
    assert [json.loads(line) for line in out.stdout.splitlines()] == [
        {"error": "ValueError: one"},
        {"error": "ValueError: two"},
    ]


class Interrupted(Exception):
    """As a test's own time limit ends it."""


@pytest.mark.slow
def test_a_tracing_process_that_ended_or_was_left_waiting_is_replaced(tmp_path: Path) -> None:
    """It answers in turn: whoever comes next would take what another had asked for."""
    plans = [
        plan_for({"model": config_folder(tmp_path / str(n), GPT2 | {"n_layer": n, "n_embd": 112})}) for n in (3, 4, 5)
    ]
    ended, left, last = (usage_of(plan).workloads[0] for plan in plans)
    short, builder = (Child("tuning.memory.tracing.build_table", seconds) for seconds in (0.01, 300.0))

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        tables._ask(short, ended)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            tables._ask(builder, left)
        tables._ask(builder, last)
    finally:
        signal.signal(signal.SIGALRM, before)
        short.close()
        builder.close()
    assert find_table(ended) is None and untraceable(ended) == "the tracing process ended"
    assert find_table(left) is None and untraceable(left) is None
    table = find_table(last)
    assert table is not None and table.layers == 5


def test_the_peak_of_an_evaluation_may_lie_in_shorter_rows_with_more_labels() -> None:
    """Logits are made at labels alone."""
    plan = plan_for({"method": {"name": "prompt_engineering"}, "data": {"source": "people-questions"}, "device": "cpu"})
    built = build(plan.settings, plan.model.path, None, 1e-4, 0)
    rows = [
        EncodedRow(ids=[5] * length, trained=[n >= length - labels for n in range(length)], label=None, cut=False)
        for length, labels in ((60, 1), (58, 40), (56, 40))
        for _ in range(32)
    ]
    probe, measured = PeakProbe(), []
    measure = PeakProbe.measure
    with pytest.MonkeyPatch.context() as counted:
        counted.setattr(PeakProbe, "measure", lambda self, *size: measured.append(size[-1]) or measure(self, *size))
        evaluate(built, rows, batch_size=32, probe=probe)
    with metered(built.model, built.optimizer, built.device) as whole:
        evaluate(built, rows, batch_size=32)
    assert probe.peak_bytes == pytest.approx(whole.peak_bytes, rel=1e-3)
    sizes = [
        (shape.length, shape.label_tokens) for candidates in measured for shape in [batch.shape for batch in candidates]
    ]
    assert sizes == [(60, 32), (58, 32 * 40)], "what is smaller in both ways is not measured"
