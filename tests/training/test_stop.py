"""Stop is Stop: whatever a run is doing, it ends after the rows, tensor, batch or token in hand, and keeps the rest."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.quick_runs import until
from support.tiny_jobs import WORDS, TinyJobs, run
from tuning.core.errors import RunError, Stopped
from tuning.data import encode_set, open_data
from tuning.runs.events import Event
from tuning.runs.service import RunService
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer
from tuning.training.job import Commands

torch = pytest.importorskip("torch")
PROMPTS = [f"the {WORDS[i % len(WORDS)]} dog" for i in range(64)]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> TinyJobs:
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


class Checks:
    """A `should_continue` that says no at one look, and knows the longest time between two."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.count, self.longest, self._before = last, 0, 0.0, time.thread_time()

    def __call__(self) -> bool:
        now = time.thread_time()
        self.longest, self._before = max(self.longest, now - self._before), now
        self.count += 1
        return self.last is None or self.count < self.last


def many_rows(file: Path, count: int) -> Path:
    lines = (f'{{"text": "row {i} {" ".join(WORDS * 3)}"}}\n' for i in range(count))
    text = "".join(lines).encode()
    if file.suffix == ".gz":
        text = gzip.compress(text, 1)
    elif file.suffix == ".bz2":
        text = bz2.compress(text, 1)
    elif file.suffix == ".json":
        text = b"[" + b",".join(text.splitlines()) + b"]"
    elif file.suffix == ".csv":
        text = b"text\n" + b"".join(b'"%b"\n' % json.loads(line)["text"].encode() for line in text.splitlines())
    elif file.name.startswith("utf16"):
        text = text.decode().encode("utf-16")
    if file.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        texts = [json.loads(line)["text"] for line in text.splitlines()]
        pq.write_table(pa.table({"text": texts}), file, use_dictionary=False, compression="none")
    else:
        file.write_bytes(text)
    return file


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.csv", "rows.json", "utf16.jsonl", "rows.jsonl.gz", "rows.jsonl.bz2", "rows.parquet"]
)
def test_reading_a_file_ends_in_the_middle(tmp_path: Path, name: str) -> None:
    file = many_rows(tmp_path / name, 60_000)
    settings = DataSettings(source=str(file), columns={"text": "text"})

    def read(checks: Checks) -> Any:
        os.utime(file, ns=(time.time_ns(), time.time_ns()))  # another version: nothing kept is used
        return open_data(settings, "causal_lm", 0, should_continue=checks)

    whole = Checks()
    assert len(read(whole).train) > 50_000
    assert whole.count >= 10 and whole.longest < 0.5, (whole.count, whole.longest)
    for part in (3, whole.count // 2, whole.count):
        stopped = Checks(part)
        with pytest.raises(Stopped):
            read(stopped)
        assert stopped.count == part, "not one piece more is read"
    assert read(Checks()).fingerprint == open_data(settings, "causal_lm", 0).fingerprint


def test_one_that_waits_for_anothers_reading_stops_waiting(tmp_path: Path) -> None:
    file = many_rows(tmp_path / "rows.jsonl", 1_000)
    settings = DataSettings(source=str(file), columns={"text": "text"})
    inside, leave = threading.Event(), threading.Event()

    def slow() -> bool:
        inside.set()
        return leave.wait(30)

    first = threading.Thread(target=lambda: open_data(settings, "causal_lm", 0, should_continue=slow))
    first.start()
    try:
        assert inside.wait(10)
        with pytest.raises(Stopped):
            open_data(settings, "causal_lm", 0, should_continue=Checks(3))
        assert first.is_alive(), "the other reads on"
    finally:
        leave.set()
        first.join(30)


def test_tokenizing_ends_at_the_next_few_rows(jobs: TinyJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuning.data import token_arrays as encoded

    commands, done, at_stop = Commands(), [0], [0]
    real = encoded.tokenize_rows

    def counted(rows: Any, *given: Any, **more: Any) -> Any:
        done[0] += len(rows)
        return real(rows, *given, **more)

    def on_event(event: Event) -> None:
        if event.kind == "phase" and event.data["name"] == "tokenizing" and event.data["done"]:
            at_stop[0] = done[0]
            commands.stop()

    file = many_rows(tmp_path / "rows.jsonl", 40_000)
    job = jobs.job(data={"source": str(file), "columns": {"text": "text"}, "eval_rows": 4})
    monkeypatch.setattr(encoded, "tokenize_rows", counted)
    state, events = run(job, commands, on_event)
    assert state == "cancelled" == events[-1].kind and 5_000 <= at_stop[0] < 7_000
    assert done[0] - at_stop[0] <= encoded.CHUNK_ROWS, "of 36,000 rows"
    assert [event.kind for event in events].count("started") == 0
    assert not (Path(job.folder) / "model").exists(), "nothing was learned"


def test_long_rows_are_tokenized_few_at_a_time(jobs: TinyJobs) -> None:
    from tuning.text import Row

    tokenizer, checks = TextTokenizer(jobs.model), Checks()
    rows = [Row(text="the red dog " * 8_000) for _ in range(20)]
    encode_set(rows, tokenizer, DataSettings(), "causal_lm", should_continue=checks)
    assert checks.count >= 7 and checks.longest < 1.0


def test_loading_ends_between_tensors_and_loads_again(jobs: TinyJobs) -> None:
    from tuning.training.build import load_base, stop_between_tensors

    def load(checks: Checks) -> Any:
        with stop_between_tensors(checks):
            return load_base(str(jobs.model), class_names=None, attention="sdpa", dtype=torch.float32, pad_id=0)

    whole = Checks()
    before = load(whole)
    tensors = dict(before.named_parameters())
    assert whole.count >= len(tensors), (whole.count, len(tensors))
    for part in range(1, whole.count, max(1, whole.count // 7)):
        with pytest.raises(Stopped):
            load(Checks(part))
        assert torch.get_default_dtype() == torch.float32
    again = load(Checks())
    for name, weight in again.named_parameters():
        assert weight.device.type == "cpu" and torch.equal(weight, tensors[name]), name


def test_merging_ends_between_tensors_and_leaves_no_half(jobs: TinyJobs) -> None:
    from tuning.training.merge import merged_folder

    job = jobs.job(method={"name": "lora", "r": 4}, max_steps=1)
    assert run(job)[0] == "finished"
    for part in (1, 30, 100):
        with pytest.raises(Stopped):
            merged_folder(job, "a card", should_continue=Checks(part))
        assert not list(Path(job.folder).glob("merged*"))
    whole = Checks()
    assert (merged_folder(job, "a card", should_continue=whole) / "model.safetensors").is_file() and whole.count > 100


PHASES: dict[str, tuple[dict[str, Any], Callable[[Event], bool]]] = {
    "samples": ({"sample": {"prompts": PROMPTS}, "eval": {"max_new_tokens": 100}}, lambda e: e.kind == "eval"),
    "written answers": (
        {"eval": {"metrics": ["exact_match"], "max_new_tokens": 100}},
        lambda e: e.kind == "started",
    ),
    "evaluation": ({"eval": {"every": 1}, "data": {"eval_fraction": 0.5}}, lambda e: e.kind == "step"),
    "features": (
        {"method": {"name": "feature_extraction"}},
        lambda e: e.kind == "phase" and e.data["name"] == "caching",
    ),
    "the base's answers for a recipe": (
        {"recipe": {"name": "r_tuning"}, "eval": {"max_new_tokens": 100}},
        lambda e: e.kind == "phase" and e.data["name"] == "answering" and e.data["done"] == 3,
    ),
    "what a recipe measures": (
        {"recipe": {"name": "r_tuning"}, "eval": {"max_new_tokens": 20}},
        lambda e: (
            e.kind == "phase" and e.data["name"] == "answering" and e.data["detail"] == "what the recipe measures"
        ),
    ),
    "a method without training": (
        {"method": {"name": "prompt_engineering"}, "data": {"eval_fraction": 0.9}, "micro_batch_size": 1},
        lambda e: e.kind == "started",
    ),
    "training": ({"max_steps": 500}, lambda e: e.kind == "step" and e.data["step"] == 3),
}


@pytest.mark.parametrize("phase", PHASES)
def test_not_two_passes_more_through_the_model(jobs: TinyJobs, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """A pass is a token while answers are written, else a batch."""
    from transformers import LlamaModel

    changes, begun = PHASES[phase]
    commands, passes, armed = Commands(), [0, 0], [False]
    last = 1 if phase == "a method without training" else 4  # it has two batches
    real = LlamaModel.forward

    def counted(self: Any, *given: Any, **more: Any) -> Any:
        result = real(self, *given, **more)
        passes[0] += armed[0] and not commands.stopping
        passes[1] += commands.stopping
        if passes[0] == last:
            commands.stop()
        return result

    def on_event(event: Event) -> None:
        armed[0] = armed[0] or begun(event)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    job = jobs.job(**changes)
    state, events = run(job, commands, on_event)
    assert state == "cancelled" == events[-1].kind, events[-1]
    assert passes[0] == last and passes[1] <= 1, passes
    if phase in ("samples", "written answers", "evaluation", "training"):
        is_saved = (Path(job.folder) / "model" / "model.safetensors").is_file()
        assert is_saved == (events[-1].data["step"] > 0), "what was trained is kept"
        assert events[-1].data["step"] == max(
            [event.data["step"] for event in events if event.kind == "step"], default=0
        )
    assert not any("were up" in str(event.data.get("message")) for event in events), "no limit was reached"


def test_a_stop_in_the_last_evaluation_is_a_stop(jobs: TinyJobs) -> None:
    commands = Commands()

    def on_event(event: Event) -> None:
        if event.kind == "step" and event.data["step"] == 2:
            commands.stop()

    state, events = run(jobs.job(max_steps=2), commands, on_event)
    assert state == "cancelled" and events[-1].data["step"] == 2
    assert [event.data["step"] for event in events if event.kind == "eval"] == [0]


def test_a_run_stopped_in_any_phase_ends_soon_and_the_server_with_it(jobs: TinyJobs, tmp_path: Path) -> None:
    """64 sample prompts of 512 tokens of the bundled model take a minute."""
    service = RunService(tmp_path / "home")
    long = {"sample": {"prompts": ["The film was"] * 64}, "eval": {"max_new_tokens": 512}, "data": {"eval_rows": 4}}
    try:
        run_id = service.start(long)
        until(lambda: any(event.kind == "eval" for event in service.store.events(run_id)))
        time.sleep(0.5)
        began = time.monotonic()
        service.stop(run_id)
        assert service.wait(run_id, 5) == "cancelled", time.monotonic() - began
        with pytest.raises(RunError, match="before anything was learned"):
            service.result(run_id)
        run_id = service.start(long)
        until(lambda: any(event.kind == "eval" for event in service.store.events(run_id)))
    finally:
        began = time.monotonic()
        service.close()
    assert time.monotonic() - began < 8
    again = RunService(tmp_path / "home")
    assert again.run(run_id).state == "cancelled"
    again.close()


def test_a_stop_between_tensors_leaves_gradients_as_they_were() -> None:
    """A library's way back to gradients is a call of torch too, and may be the one at which it ends: the next run in
    this thread would learn nothing."""
    import torch

    from tuning.training.build import stop_between_tensors

    should_continue = [True]
    with pytest.raises(Stopped), stop_between_tensors(lambda: should_continue[0]), torch.no_grad():
        torch.zeros(1)
        should_continue[0] = False
    assert torch.is_grad_enabled()
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad
