"""Asking a run: whatever goes wrong is a sentence, and a run that trains nothing answers in its method's own way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.method_matrix import MatrixJobs
from support.routes import client_of
from tuning.runs.service import RunService
from tuning.text.question import Question
from tuning.web.ask import add_ask_routes

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> MatrixJobs:
    return MatrixJobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunService]:
    service = RunService(tmp_path / "home")
    yield service
    service.close()


def ran(service: RunService, given: dict[str, Any]) -> str:
    run_id = service.start(given)
    assert service.wait(run_id, 120) == "finished", service.run(run_id).message
    return run_id


def test_any_temperature_that_is_allowed_is_answered(jobs: MatrixJobs, service: RunService) -> None:
    run_id = ran(service, jobs.settings(max_steps=1))
    client = client_of(add_ask_routes, service)
    answers = {}
    for warmth in (0, 1, 2, 2.0, 5, 1e-300, 0.3):
        body = {"prompts": ["the red dog"], "max_new_tokens": 4, "temperature": warmth}
        answer = client.post(f"/fork/runs/{run_id}/ask", json=body)
        assert answer.status_code in (200, 422), (warmth, answer.text)
        answers[warmth] = json.loads(answer.text.splitlines()[-1]) if answer.status_code == 200 else answer.json()
        assert "answers" in answers[warmth] or "could not answer" in answers[warmth]["message"], (
            warmth,
            answers[warmth],
        )
    assert "answers" in answers[2] and answers[2] == answers[2.0]
    for wrong in ("2", None, True, 6, -1, [], float("nan"), float("inf")):
        body = json.dumps({"prompts": ["the red dog"], "temperature": wrong})
        assert client.post(f"/fork/runs/{run_id}/ask", content=body).status_code == 422, wrong
    surrogate = '{"prompts": ["the \\ud800 dog"]}'
    answer = client.post(f"/fork/runs/{run_id}/ask", content=surrogate)
    assert answer.status_code in (200, 422) and answer.text


def test_a_fault_in_the_middle_of_an_answer_is_its_last_line(
    jobs: MatrixJobs, service: RunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning.training.generate import TextGenerator

    run_id = ran(service, jobs.settings(max_steps=1))
    real = TextGenerator._generate

    def broken(self: Any, *given: Any) -> list[str]:
        real(self, *given)
        raise ZeroDivisionError("no")

    monkeypatch.setattr(TextGenerator, "_generate", broken)
    body = {"prompts": ["the red dog"], "max_new_tokens": 4}
    answer = client_of(add_ask_routes, service).post(f"/fork/runs/{run_id}/ask", json=body)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 200 and lines[0]["side"] == "base" and lines[0]["text"]
    assert lines[-1]["message"].endswith("could not answer: ZeroDivisionError: no")


def test_retrieval_answers_with_the_passages_it_finds(jobs: MatrixJobs, service: RunService, tmp_path: Path) -> None:
    index = tmp_path / "passages.jsonl"
    lines = [{"passage": "the big dog likes tree"}, {"passage": "a small house"}, {"passage": "cat never runs"}]
    index.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    method = {"name": "retrieval", "index": str(index), "top_k": 1}
    run_id = ran(service, jobs.settings(method=method))
    heard: list[dict[str, Any]] = []
    question = Question(["small house :", "dog likes :"], 4)
    answers = service.ask(run_id, question, heard.append)
    assert answers["prompts"] == [
        "Passage: a small house\nsmall house :",
        "Passage: the big dog likes tree\ndog likes :",
    ]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(jobs.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(jobs.model)
    for side, texts in (("base", question.prompts), ("trained", answers["prompts"])):
        for i, text in enumerate(texts):
            ids = torch.tensor([tokenizer(text).input_ids])
            made = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :].tolist()
            made = made[: made.index(2)] if 2 in made else made
            assert answers[side][i] == tokenizer.decode(made, skip_special_tokens=True), (side, i)
            pieces = [piece["text"] for piece in heard if (piece["side"], piece["index"]) == (side, i)]
            assert "".join(pieces) == answers[side][i]


def test_examples_in_the_prompt_stand_before_a_persons_question_too(jobs: MatrixJobs, service: RunService) -> None:
    method = {"name": "prompt_engineering", "shots": 2, "template": "red {prompt}"}
    run_id = ran(service, jobs.settings(method=method))
    (written,) = service.ask(run_id, Question(["the dog :"], 2))["prompts"]
    assert written.endswith("\n\nred the dog :") and written.count("\n\n") == 2
