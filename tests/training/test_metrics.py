"""Metrics beside the loss: exact match within its time, the table of predictions, the best weights by any metric."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.memory_peaks import measured_peak
from support.tiny_jobs import TinyJobs, run, series
from tuning.core.errors import SettingsError
from tuning.plan.plan import plan_for

pytest.importorskip("torch")
from tuning.training.exact_match import is_right  # noqa: E402


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


def tables(job):
    files = sorted((Path(job.folder) / "predictions").glob("step-*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_exact_match_is_what_the_table_shows(jobs):
    answers = {"metrics": ["perplexity", "exact_match"], "max_new_tokens": 12, "generate_rows": 5}
    job = jobs.job(max_steps=4, eval=answers)
    _, events = run(job)
    evaluations = [event.data for event in events if event.kind == "eval"]
    assert [evaluation["metrics"].keys() for evaluation in evaluations] == [{"perplexity", "exact_match"}] * len(
        evaluations
    )
    assert [table["step"] for table in tables(job)] == [0, 3, 4]
    for event, table in zip(evaluations, tables(job), strict=True):
        written = [row for row in table["rows"] if "written" in row]
        assert len(written) == 5
        hits = sum(is_right(row["written"], row["truth"]) for row in written)
        assert event["metrics"]["exact_match"] == hits / 5
        assert all(row["loss"] > 0 and row["text"] and row["prediction"] is not None for row in table["rows"])
        assert event["seconds"] > 0


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (" a baker.", "a baker.", True),
        (" a baker.\nQuestion:", " a baker.", True),
        ("a baker", "a baker.", False),
        ("a baker. And more", "a baker.", False),
        ("one\ntwo\nthree", "one\ntwo", True),
        ("one", "one\ntwo", False),
        ("", "a baker.", False),
    ],
)
def test_an_answer_is_right_in_as_many_lines_as_the_truth_has(text, answer, expected):
    assert is_right(text, answer) is expected


def test_a_model_that_knows_its_rows_is_exact(jobs, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"{w} :", "completion": " yes cat"}) for w in ("red", "dog") * 20))
    data = {"source": str(rows), "columns": {}, "eval_fraction": 0.2}
    job = jobs.job(
        data=data,
        max_steps=60,
        optimizer={"learning_rate": 1e-2},
        eval={"every": 60, "metrics": ["exact_match"]},
        save={"best_by": "exact_match"},
    )
    _, events = run(job)
    marks = [event.data["metrics"]["exact_match"] for event in events if event.kind == "eval"]
    assert marks[0] == 0.0 and marks[-1] == 1.0
    assert events[-1].data["best"]["value"] == 1.0
    assert all(row["right"] for row in tables(job)[-1]["rows"])


@pytest.mark.parametrize(
    ("row", "loss_on", "shown"),
    [
        ({"text": "yes cat red dog"}, "auto", "yes cat red dog"),
        ({"prompt": "red :", "completion": " yes cat"}, "all", "red : yes cat"),
        ({"prompt": "red :", "completion": " yes cat"}, "response", None),
    ],
)
def test_a_row_that_is_learned_whole_has_no_truth_to_miss(jobs, tmp_path, row, loss_on, shown):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for _ in range(20)))
    data = {"source": str(rows), "columns": {}, "eval_fraction": 0.2, "loss_on": loss_on}
    job = jobs.job(data=data, max_steps=1)
    run(job)
    lines = tables(job)[-1]["rows"]
    assert lines
    for line in lines:
        assert isinstance(line["prediction"], str) and line["loss"] > 0
        if shown is None:
            assert line["truth"].strip().startswith("yes cat") and line["right"] in (True, False)
        else:
            assert line["text"] == shown and line["right"] is None and "truth" not in line


def test_an_answer_that_goes_on_is_right_all_the_same(tmp_path):
    """The bundled base model knows its town and was never taught where an answer ends."""
    data = {"source": "people-questions", "eval_rows": 30}
    plan = plan_for({"method": {"name": "prompt_engineering"}, "data": data, "device": "cpu"})
    measured_peak(plan, tmp_path)
    table = json.loads((tmp_path / "predictions" / "step-00000000.json").read_text(encoding="utf-8"))
    right = [row for row in table["rows"] if row["right"]]
    assert 5 < len(right) < 30
    assert all(row["prediction"].startswith(row["truth"]) for row in right)
    assert any(row["prediction"] != row["truth"] for row in right)
    assert not any(row["prediction"].startswith(row["truth"]) for row in table["rows"] if not row["right"])


@pytest.mark.slow
def test_writing_answers_ends_in_its_time_and_says_so(jobs):
    job = jobs.job(max_steps=1, eval={"metrics": ["exact_match"], "max_seconds": 1e-9})
    _, events = run(job)
    warnings = [event.data["message"] for event in events if event.kind == "warning"]
    assert any("max_seconds" in text and "rows" in text for text in warnings)
    assert [event.data["metrics"]["exact_match"] for event in events if event.kind == "eval"] == [None, None]


@pytest.mark.slow
def test_writing_answers_changes_nothing_about_the_training(jobs):
    plain = series(run(jobs.job())[1])
    assert series(run(jobs.job(eval={"metrics": ["exact_match"], "generate_rows": 3}))[1]) == plain


def test_classes_have_a_confusion_matrix_that_adds_up(jobs):
    job = jobs.job(task="sequence_classification", max_steps=6, save={"best_by": "accuracy"})
    _, events = run(job)
    table = tables(job)[-1]
    assert table["labels"] == ["no", "yes"] and sum(map(sum, table["confusion"])) == table["of"]
    diagonal = sum(table["confusion"][i][i] for i in range(2)) / table["of"]
    last = [event.data for event in events if event.kind == "eval"][-1]
    assert last["metrics"]["accuracy"] == pytest.approx(diagonal)
    values = [event.data["metrics"]["accuracy"] for event in events if event.kind == "eval"]
    assert events[-1].data["best"]["value"] == max(values)
    for row in table["rows"]:
        assert (row["prediction"] == row["truth"]) is row["right"] and 0.5 <= row["chance"] <= 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"eval": {"metrics": ["accuracy"]}}, "eval.metrics"),
        ({"eval": {"metrics": ["auto", "perplexity"]}}, "eval.metrics"),
        ({"eval": {"metrics": []}}, "eval.metrics"),
        ({"eval": {"metrics": ["colour"]}}, "eval.metrics"),
        ({"save": {"best_by": "exact_match"}}, "save.best_by"),
        ({"save": {"best_by": "accuracy"}}, "save.best_by"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(changes, field):
    with pytest.raises(SettingsError) as caught:
        plan_for(changes)
    assert field in [problem.field for problem in caught.value.problems]


def test_the_model_is_asked_what_it_was_trained_on(jobs, tmp_path):
    """The whole conversation and the system prompt, token for token; and rows longer than a person may type."""
    from support.tiny_models import tiny_tokenizer
    from tuning.text import Row, TextTokenizer, Turn, encode_row
    from tuning.text.prompts import prompt_ids

    tiny_tokenizer(tmp_path, chat=True)
    tokenizer = TextTokenizer(tmp_path)
    turns = (Turn("user", "red"), Turn("assistant", "cat"), Turn("user", "dog"), Turn("assistant", "tree"))
    for row in (Row(messages=turns), Row(prompt="red dog :", completion=" cat")):
        whole = encode_row(row, tokenizer, max_seq_length=999, loss_on="auto", task="causal_lm", system_prompt="never")
        ids = prompt_ids(row, tokenizer, "never")
        rest = tokenizer.decode(whole.ids[len(ids) :])
        assert whole.ids[: len(ids)] == ids and "never" in tokenizer.decode(ids)
        assert rest.split()[0] == ("tree" if row.messages else "cat")
    file = tmp_path / "long.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": "red " * 1500, "completion": " cat"}) for _ in range(12)))
    job = jobs.job(
        max_steps=1,
        data={"source": str(file), "max_seq_length": 16, "eval_fraction": 0.3},
        eval={"metrics": ["exact_match"], "max_new_tokens": 4},
    )
    assert run(job)[0] == "finished"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"eval": {"max_new_tokens": 600}}, "eval.max_new_tokens"),
        ({"sample": {"prompts": [""]}}, "sample.prompts"),
        ({"sample": {"prompts": ["x" * 5000]}}, "sample.prompts"),
        ({"sample": {"prompts": ["x"] * 65}}, "sample.prompts"),
    ],
)
def test_what_could_not_be_asked_is_refused_before_the_run(given, field):
    with pytest.raises(SettingsError) as refused:
        plan_for(given)
    assert {problem.field for problem in refused.value.problems} == {field}
