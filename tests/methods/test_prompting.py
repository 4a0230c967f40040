"""Methods without updates: one evaluation on the same rows and metrics as trained runs, told as a level."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from support.method_matrix import MatrixJobs, Row, read_ids
from support.tiny_jobs import run, series
from tuning.bench.retrieval import exact_match
from tuning.core.errors import SettingsError
from tuning.methods import METHODS, method_named
from tuning.methods.base import PromptInputs
from tuning.methods.retrieval import question_of, read_passages
from tuning.plan.plan import plan_for
from tuning.text import Row as TextRow
from tuning.text import TextTokenizer

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return MatrixJobs(tmp_path_factory.mktemp("prompting"))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    file = tmp_path_factory.mktemp("index") / "passages.jsonl"
    lines = [
        {"passage": "the red dog likes cat", "name": "dog", "attribute": "likes", "misleading": False},
        {"passage": "the red dog likes tree", "name": "dog", "attribute": "likes", "misleading": True},
        {"passage": "a small house", "name": "house", "attribute": "size"},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return file


def told(world, method, **more):
    state, events = run(world.of(Row(method=method), **more))
    assert state == "finished", events[-1].data
    return events


def test_asked_plainly_it_is_the_first_point_of_a_trained_run(world) -> None:
    level = told(world, {"name": "prompt_engineering"}, max_steps=7)
    assert [event.data["step"] for event in level if event.kind == "eval"] == [0, 7]
    assert len(set(series(level, kind="eval"))) == 1 and not series(level)
    trained = told(world, {"name": "full"}, max_steps=1)
    assert series(level, kind="eval")[0] == series(trained, kind="eval")[0]
    names = [set(event.data["metrics"]) for run_ in (level, trained) for event in run_ if event.kind == "eval"]
    assert all(one == names[0] for one in names)


def test_examples_and_passages_change_the_question_alone(world, index) -> None:
    plain = series(told(world, {"name": "prompt_engineering"}), kind="eval")[0]
    shots = series(told(world, {"name": "prompt_engineering", "shots": 1}), kind="eval")[0]
    found = series(told(world, {"name": "retrieval", "index": str(index)}), kind="eval")[0]
    assert len({plain, shots, found}) == 3
    rows = [TextRow(prompt=f"q{n}", completion=f" a{n}") for n in range(4)]
    asked = PromptInputs(train=rows[:3], eval=rows[3:], answer=lambda prompts: [], data_folder=None, seed=0)
    method = method_named("prompt_engineering")
    made = method.prompts(asked, method.settings(shots=2, template="ask {prompt}"))
    assert made[0].completion == " a3" and made[0].prompt is not None
    assert made[0].prompt.endswith("\n\nask q3") and made[0].prompt.count("ask q") == 3
    again = method.prompts(asked, method.settings(shots=2, template="ask {prompt}"))
    other = method.prompts(asked, method.settings(shots=2, template="ask {prompt}", example_seed=4))
    assert made == again and made != other


def test_misleading_passages_take_the_place_of_true_ones(index) -> None:
    method = method_named("retrieval")
    rows = [TextRow(prompt="who likes dog", completion=" cat")]

    def asked(answers):
        return PromptInputs(
            train=[], eval=rows, answer=lambda prompts: [answers[p] for p in prompts], data_folder=None, seed=0
        )

    def prompt(answers=None, **settings):
        return method.prompts(asked(answers or {}), method.settings(index=str(index), **settings))[0].prompt

    true, wrong = (f"Passage: the red dog likes {what}\nwho likes dog" for what in ("cat", "tree"))
    assert prompt() == true and prompt(misleading_share=1.0) == wrong
    surely, hardly = ({"who likes dog": (" cat", sure), wrong: (" tree", 0.99)} for sure in (0.5, 0.1))
    assert prompt(surely, misleading_share=1.0, policy="conflict_aware") == "who likes dog"
    assert prompt(hardly, misleading_share=1.0, policy="conflict_aware") == wrong


def test_confidence_is_that_of_the_greedy_answer(world) -> None:
    from transformers import AutoModelForCausalLM

    from tuning.training.confidence import answers_with_confidence

    model = AutoModelForCausalLM.from_pretrained(world.models["llama"]).eval()
    tokenizer = TextTokenizer(world.models["llama"])
    ((said, sure),) = answers_with_confidence(model, tokenizer, ["the red dog"], 3)
    ids, chances, expected = tokenizer.encode("the red dog"), [], []
    for _ in range(3):
        with torch.no_grad():
            spread = torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)
        if int(spread.argmax()) == tokenizer.eos_id:
            break
        chances.append(float(spread.max()))
        ids.append(int(spread.argmax()))
        expected.append(ids[-1])
    assert said == tokenizer.decode(expected) and sure == pytest.approx(math.prod(chances), abs=1e-5)


def test_methods_without_updates_train_nothing() -> None:
    from tuning.plan.plan import plan_for

    for method in METHODS:
        if not method.updates:
            plan = plan_for({"method": {"name": method.name}, "data": {"source": "people-questions"}})
            assert plan.value("trainable_parameters") == 0


@pytest.mark.slow
def test_passages_bring_in_facts_and_errors_and_the_rule_keeps_what_is_known() -> None:
    """Of people it never read about the model answers from the passage; of those it knows it need not be misled."""

    def answered(source: str, share: float, policy: str = "naive") -> float:
        return exact_match(source, {"name": "retrieval", "misleading_share": share, "policy": policy}, rows=40)

    assert exact_match("new-people", {"name": "prompt_engineering"}, rows=40) <= 0.2
    assert answered("new-people", 0.0) >= 0.95
    assert answered("new-people", 1.0) <= 0.05
    assert abs(answered("retention", 0.5) - 0.5) <= 0.15
    assert answered("retention", 0.5, "conflict_aware") >= 0.92


def passages_file(folder: Path, *lines: str) -> str:
    file = folder / "index.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    return str(file)


def test_a_byte_order_mark_and_rare_line_ends_inside_a_text_are_read(tmp_path: Path) -> None:
    file = passages_file(tmp_path, '{"passage": "one\u2028two"}', '{"passage": "three"}', "")
    assert [one.text for one in read_passages(Path(file))] == ["one\u2028two", "three"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"data": {"source": "reviews"}}, "method.index"),
        ({"method": {"index": '{"passage": "a", "misleading": true}'}}, "method.top_k"),
        ({"method": {"index": '{"passage": "a"}', "top_k": 2}}, "method.top_k"),
    ],
)
def test_retrieval_without_enough_passages_is_refused(settings: dict[str, Any], field: str, tmp_path: Path) -> None:
    method = {"name": "retrieval"} | settings.get("method", {})
    if "index" in method:
        method["index"] = passages_file(tmp_path, method["index"])
    with pytest.raises(SettingsError) as refused:
        plan_for({"data": settings.get("data", {"source": "people-questions"}), "method": method})
    assert [problem.field for problem in refused.value.problems] == [field]


def test_only_a_bundled_rows_own_passage_is_taken_off_the_question() -> None:
    row = TextRow(prompt="Passage: chapter 3.\nWho wrote it?", completion=" She.")
    assert question_of(row, bundled=True).prompt == "Who wrote it?"
    assert question_of(row, bundled=False) == row


def test_the_models_own_answer_is_asked_behind_the_system_prompt(world, index) -> None:
    """conflict_aware compares answers to questions as they are evaluated."""
    method = {"name": "retrieval", "index": str(index), "policy": "conflict_aware"}
    plan = world.of(Row(method=method), data={"system_prompt": "never runs", "eval_rows": 2}).plan
    with read_ids() as asked:
        told(world, method, data={"system_prompt": "never runs", "eval_rows": 2})
    heads = [TextTokenizer(plan.model.path).decode(ids) for ids in asked]
    assert len(heads) >= 5 and all(head.startswith("never runs") for head in heads), heads
