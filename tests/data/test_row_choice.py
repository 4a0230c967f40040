"""Which rows are held out and taken: whole shares, by the seed, class by class; and what is told of what is missing."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.data_files import rows_summary
from tuning.core.errors import Notice
from tuning.data import open_data
from tuning.data.data_set import DataSet
from tuning.data.row_choice import held_counts, hold_out, taken_counts
from tuning.plan.plan import plan_for
from tuning.settings.schema import DataSettings

MODEL = "tiny-town"
Rows = Sequence[dict[str, Any]]


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., DataSet]:
    def read(rows: Rows, seed: int = 0, task: str = "sequence_classification", **more: Any) -> DataSet:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return open_data(DataSettings(**({"source": str(file)} | more)), task, seed)

    return read


def small_classes(classes: int = 30, each: int = 5) -> Rows:
    return [{"text": f"the mill {n}", "label": f"topic {n // each:02}"} for n in range(classes * each)]


def sorted_classes() -> Rows:
    return [{"text": f"the mill {n}", "label": "negative" if n < 60 else "positive"} for n in range(120)]


def told(data: DataSet | Any, words: str) -> Notice:
    (found,) = [one for one in data.notices if words in one.message]
    return found


def test_many_small_classes_give_their_whole_share(opened: Callable[..., DataSet]) -> None:
    data = opened(small_classes())
    assert (len(data.train), len(data.eval)) == (135, 15)
    assert max(Counter(row.label for row in data.eval).values()) == 1
    notice = told(data, "no evaluation rows")
    assert notice.count == 15 and notice.field == "data.eval_fraction" and "topic" in notice.message


def test_shares_are_those_of_largest_remainders() -> None:
    draw = random.Random(1)
    for _ in range(2_000):
        sizes = [draw.randint(2, 60) for _ in range(draw.randint(1, 12))]
        fraction = draw.choice((0.05, 0.1, 0.15, 0.25, 0.5))
        counts, share = held_counts(sizes, fraction, 0), sum(sizes) * fraction
        assert abs(sum(counts) - share) <= 0.5 + 1e-9
        assert all(count < size for count, size in zip(counts, sizes, strict=True))
        if sum(counts) >= len(sizes):
            assert all(counts), "at least one of each class"
        else:  # so few that no class gets more than its share, rounded up
            assert all(count <= size * fraction + 1 for count, size in zip(counts, sizes, strict=True))
    assert held_counts([10, 20, 70], 0.1, 0) == [1, 2, 7]
    assert taken_counts([50, 30, 20], 7, 0) == [4, 2, 1]  # quotas 3.5, 2.1, 1.4: the one left over to the largest rest


def test_a_share_that_rounding_already_gives_is_held_out_as_before() -> None:
    groups = [range(0, 40), range(40, 100), range(100, 300)]
    draw, before = random.Random(5), list[int]()
    for group in groups:
        before += [group[one] for one in draw.sample(range(len(group)), round(len(group) * 0.1))]
    assert list(hold_out(groups, 0.1, 5)) == sorted(before)


def test_a_rare_class_is_evaluated_where_it_has_two_rows(opened: Callable[..., DataSet]) -> None:
    rows = [{"text": f"the mill {n}", "label": "rare" if n % 51 == 50 else "usual"} for n in range(204)]
    data = opened(rows)
    names = data.label_names or ()
    assert Counter(names[row.label or 0] for row in data.eval) == {"usual": 19, "rare": 1}
    assert all(one.field == "data.columns" for one in data.notices)
    alone = opened([*rows[:50], {"text": "one", "label": "rare"}])
    assert told(alone, "no evaluation rows").message.endswith(": rare.") and told(alone, "1 class has").count == 1


def test_a_class_that_the_training_rows_lack_is_told(opened: Callable[..., DataSet]) -> None:
    first = opened(sorted_classes(), train_rows=40, eval_rows=6, row_choice="first")
    assert {row.label for row in first.train} == {0}
    notice = told(first, "no training rows")
    assert notice.count == 1 and "positive" in notice.message and notice.field == "data.train_rows"
    assert "positive" in told(first, "no evaluation rows").message


def test_rows_are_drawn_class_by_class_from_a_sorted_file(opened: Callable[..., DataSet]) -> None:
    data = opened(sorted_classes(), train_rows=40, eval_rows=6)
    assert Counter(row.label for row in data.train) == {0: 20, 1: 20}
    assert Counter(row.label for row in data.eval) == {0: 3, 1: 3}
    for rows in (data.train, data.eval):
        assert list(rows.indices) == sorted(set(rows.indices)), "in the rows' order, each once"
    assert not set(data.train.indices) & set(data.eval.indices) and {one.field for one in data.notices} <= {
        "data.columns"
    }


def test_the_seed_alone_decides_which_rows_are_taken(opened: Callable[..., DataSet]) -> None:
    chosen = {"train_rows": 30, "eval_rows": 8}
    first, again, other = (opened(sorted_classes(), seed=seed, **chosen) for seed in (3, 3, 4))
    assert list(first.train.indices) == list(again.train.indices) != list(other.train.indices)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    more = opened(sorted_classes(), seed=3, train_rows=30, eval_rows=9)
    assert list(more.train.indices) == list(first.train.indices), "evaluation rows are drawn apart"


def test_texts_without_classes_are_drawn_by_the_seed_too(opened: Callable[..., DataSet]) -> None:
    rows = [{"text": f"line {n}"} for n in range(200)]
    data = opened(rows, task="causal_lm", train_rows=20)
    assert len(data.train) == 20 and max(data.train.indices) > 100
    first = opened(rows, task="causal_lm", train_rows=20, row_choice="first")
    assert list(first.train.indices) == [n for n in range(200) if n not in set(first.eval.indices)][:20]
    assert data.fingerprint != first.fingerprint


def test_the_fingerprint_follows_the_bytes_and_not_the_time(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    content = "".join(json.dumps({"text": f"line {n:03}"}) + "\n" for n in range(50))
    file.write_text(content)
    first = open_data(DataSettings(source=str(file)), "causal_lm", 0).fingerprint
    copy.write_text(content)
    os.utime(copy, (1, 1))
    assert open_data(DataSettings(source=str(copy)), "causal_lm", 0).fingerprint == first
    before = file.stat()
    file.write_text(content.replace("line 049", "LINE 049"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    data = open_data(DataSettings(source=str(file)), "causal_lm", 0)
    assert data.fingerprint != first, "as many bytes, the same time, other words"
    assert "LINE 049" in {row.text for row in (*data.train, *data.eval)}
    file.write_text(content)
    assert open_data(DataSettings(source=str(file)), "causal_lm", 0).fingerprint == first


def test_a_run_without_evaluation_rows_says_so(opened: Callable[..., DataSet]) -> None:
    rows = [{"text": f"line {n}"} for n in range(3)]
    for more in ({}, {"eval_fraction": 0.0}):
        notice = told(opened(rows, task="causal_lm", **more), "no evaluation rows")
        assert (notice.field, notice.count) == ("data.eval_fraction", 0)


def planned(file: Path, **changes: Any) -> tuple[Notice, ...]:
    plain = {"data": {"source": str(file), "max_seq_length": 32}, "device": "cpu"} | changes
    return plan_for(plain).notices


def test_a_run_that_goes_over_few_rows_very_often_says_so(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(3)))
    notices = {one.field: one for one in planned(file, max_steps=60)}
    assert notices["max_steps"].count == 60 and "3 training rows 60 times" in notices["max_steps"].message
    assert notices["gradient_accumulation_steps"].count == 3
    few = {one.field for one in planned(file, max_steps=20, micro_batch_size=1, gradient_accumulation_steps=3)}
    assert not few & {"max_steps", "num_epochs", "gradient_accumulation_steps"}
    epochs = {one.field for one in planned(file, num_epochs=21, micro_batch_size=1, gradient_accumulation_steps=1)}
    assert "num_epochs" in epochs


@pytest.mark.parametrize(("warmup", "words"), [(9, None), (10, "at the last update only"), (11, "never reached")])
def test_a_warm_up_longer_than_the_run_is_told(tmp_path: Path, warmup: int, words: str | None) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(50)))
    found = [
        one.message
        for one in planned(file, max_steps=10, schedule={"warmup_steps": warmup})
        if one.field == "schedule.warmup_steps"
    ]
    assert len(found) == (words is not None) and all((words or "") in message for message in found)


def test_repeated_and_empty_rows_of_small_data_are_told_in_the_plan(tmp_path: Path) -> None:
    from tuning.core.paths import asset_path

    rows = [{"prompt": f"Q {n}", "completion": f"A {n}"} for n in range(20)]
    odd = [rows[0], {"prompt": "Q", "completion": " "}]
    (tmp_path / "a-train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, *odd)))
    (tmp_path / "a-eval.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (rows[3], {**rows[4], "prompt": "x"}))
    )
    source = DataSettings(source=str(tmp_path / "a-train.jsonl"))
    summary = rows_summary(source, str(asset_path("models", MODEL)), "causal_lm", 0)
    for words in ("trained on too", "repeats an earlier one", "nothing to learn"):
        assert told(summary, words).count == 1
