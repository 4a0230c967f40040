"""What a run calls its best exists, is a number, and is still known when the run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.tiny_jobs import TinyJobs, run, series
from tuning.core.errors import RunError, SettingsError
from tuning.plan.plan import plan_for
from tuning.runs.events import Event
from tuning.runs.service import RunService
from tuning.training.job import Commands, Job

torch = pytest.importorskip("torch")
HOT = {
    "optimizer": {"learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "data": {"train_rows": 8},
    "eval": {"every": 2},
    "save": {"every": 2},
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> TinyJobs:
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home")
    yield service
    service.close()


def stopped_at(job: Job, step: int) -> list[Event]:
    """The events of a run that was stopped right behind the checkpoint of this step."""
    commands = Commands()

    def stop(event: Event) -> None:
        if event.kind == "checkpoint" and event.data["step"] == step:
            commands.stop()

    state, events = run(job, commands, stop)
    assert state == "cancelled"
    return events


def test_a_run_that_goes_on_keeps_its_best_and_writes_the_same_weights(jobs: TinyJobs, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole = jobs.job(tmp_path / "whole", max_steps=8, **HOT)
    _, events = run(whole)
    best = events[-1].data["best"]
    assert best["step"] < 4 and series(events, kind="eval")[-1] > best["value"] + 0.1, "it gets worse at this rate"
    stopped_at(jobs.job(tmp_path / "parts", max_steps=8, **HOT), 4)
    _, again = run(jobs.job(tmp_path / "parts", attempt=2, max_steps=8, **HOT))
    assert again[-1].data["best"] == best
    resumed, in_one_piece = (
        load_file(tmp_path / name / "best" / "model" / "model.safetensors") for name in ("parts", "whole")
    )
    assert all(torch.equal(resumed[name], in_one_piece[name]) for name in in_one_piece)
    card = (tmp_path / "parts" / "model" / "README.md").read_text("utf-8")
    assert all(f"\n| {step} | " in card for step in (0, 2, 4, 6, 8)), "every evaluation, not those since"


def test_patience_and_clock_go_on_where_they_were(jobs: TinyJobs, tmp_path: Path) -> None:
    patient = HOT | {"eval": {"every": 1, "patience": 4}, "save": {"every": 1}}
    _, events = run(jobs.job(tmp_path / "whole", max_steps=60, **patient))
    end = events[-1].data
    assert end["step"] < 60
    first = stopped_at(jobs.job(tmp_path / "parts", max_steps=60, **patient), end["step"] - 2)
    _, again = run(jobs.job(tmp_path / "parts", attempt=2, max_steps=60, **patient))
    assert (again[-1].data["step"], again[-1].data["best"]) == (end["step"], end["best"])
    assert series(again, "seconds")[0] > series(first, "seconds")[-1]


def test_the_best_of_a_killed_run_is_what_is_kept(jobs: TinyJobs, tmp_path: Path) -> None:
    """Killed behind an evaluation that was better than all before its checkpoint: those weights are there, so they are
    the best, under their own step."""
    good = {"max_steps": 8, "eval": {"every": 1}, "save": {"every": 3}, "optimizer": {"learning_rate": 1e-3}}

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if event.kind == "eval" and event.data["step"] == 5:
            raise Killed

    job = jobs.job(tmp_path / "killed", **good)
    with pytest.raises(Killed):
        run(job, on_event=kill)
    commands = Commands()

    def stop(event: Event) -> None:
        if event.kind == "started":
            commands.stop()

    state, events = run(jobs.job(tmp_path / "killed", attempt=2, **good), commands, stop)
    assert state == "cancelled" and events[-1].data["step"] == 3
    best = events[-1].data["best"]
    assert best["step"] == 4 and (tmp_path / "killed" / "best" / "model").is_dir()


def test_without_evaluation_rows_none_is_the_best(jobs: TinyJobs, service: RunService) -> None:
    given = jobs.settings(data={"eval_fraction": 0.0}, method={"name": "lora", "r": 4})
    run_id = service.start(given, name="mine")
    assert service.wait(run_id, 120) == "finished"
    (end,) = service.store.events(run_id, "finished")
    assert end.data["best"] is None
    assert service.result(run_id).is_dir()
    for form in ("best", "best-merged"):
        with pytest.raises(RunError, match="mine has no best weights"):
            service.result(run_id, form)


def test_a_value_that_is_no_number_is_never_the_best(jobs: TinyJobs, tmp_path: Path) -> None:
    from tuning.text import TextTokenizer
    from tuning.training.build import build
    from tuning.training.scores import Scores

    job = jobs.job(tmp_path / "run", eval={"metrics": ["perplexity"]}, save={"best_by": "perplexity"})
    settings, events = job.plan.settings, list[tuple[str, dict[str, Any]]]()
    from tuning.data import encode_pairs, open_data

    tokenizer = TextTokenizer(jobs.model)
    held = open_data(settings.data, settings.task, settings.seed).eval
    pairs = list(encode_pairs(held, tokenizer, settings.data, settings.task))
    rows, encoded = [row for row, _ in pairs], [encoded_row for _, encoded_row in pairs]

    def emit(kind: str, **data: Any) -> None:
        events.append((kind, data))

    scores = Scores(job, emit, tokenizer, rows, encoded, None, ())
    built = build(settings, str(jobs.model), None, 1e-3, 0)
    weight = built.model.get_output_embeddings().weight
    initial = weight.detach().clone()
    for step, factor in enumerate((math.nan, 1e5)):  # the loss is no number; the loss is one, its exponential is not
        with torch.no_grad():
            weight.copy_(initial * factor)
        scores.evaluate(built, step, 8, lambda: True)
        assert (scores.best, scores.without_best, scores.stored_best()) == (None, 0, None)
        kind, data = events[-1]
        assert kind == "warning" and "perplexity" in data["message"] and "nor against" in data["message"]
    with torch.no_grad():
        weight.copy_(initial)
    scores.evaluate(built, 2, 8, lambda: True)
    assert scores.best is not None and scores.best[0] == 2 and math.isfinite(scores.best[1])
    assert scores.stored_best() == scores.best
    with torch.no_grad():
        weight.copy_(initial * math.nan)
    scores.evaluate(built, 3, 8, lambda: True)
    assert scores.best[0] == 2 and scores.without_best == 0


def test_answers_that_take_too_long_do_not_end_a_run_that_learns(jobs: TinyJobs) -> None:
    """exact_match of no answered row is no number: it was the best for ever, and patience ended the run."""
    eval_settings = {"every": 1, "metrics": ["exact_match"], "max_seconds": 1e-9, "patience": 2}
    state, events = run(jobs.job(max_steps=6, eval=eval_settings, save={"best_by": "exact_match"}))
    assert state == "finished" and events[-1].data["step"] == 6 and events[-1].data["best"] is None
    assert sum("exact_match" in event.data["message"] for event in events if event.kind == "warning") >= 7


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"data": {"eval_fraction": 0.0}, "eval": {"patience": 2}}, "eval.patience"),
        ({"data": {"eval_fraction": 0.0}, "eval": {"metrics": ["perplexity"]}}, "eval.metrics"),
        (
            {"data": {"eval_fraction": 0.0}, "save": {"best_by": "token_accuracy"}},
            "save.best_by",
        ),
    ],
)
def test_what_rows_cannot_tell_is_refused_before_start(jobs: TinyJobs, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError) as refused:
        plan_for(jobs.settings(**changes))
    assert [problem.field for problem in refused.value.problems] == [field]
    assert "no evaluation rows" in refused.value.problems[0].message


def test_exact_match_is_refused_where_no_row_has_an_answer(jobs: TinyJobs, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"the red dog likes cat {i}"}) + "\n" for i in range(20)))
    given = jobs.settings(eval={"metrics": ["exact_match"]})
    given["data"] = {"source": str(file), "max_seq_length": 32}
    with pytest.raises(SettingsError, match="has an answer of its own"):
        plan_for(given)
