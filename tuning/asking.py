"""Asking a run something: the question as a value, and the two ways to have it answered.

In: what a person typed, and the run it is for. Out: {"base": [...], "trained": [...]}, an answer to each prompt. A
run that trains answers between two of its updates, with the weights it has then; one that has ended, from its files.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import Problem, RunError, SettingsError
from tuning.executors.base import Executor, RunHandle
from tuning.rows import RunRow

ASK_SECONDS = 120.0
PROMPT_LENGTH, PROMPT_COUNT = 4_000, 8
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """Prompts and how to answer them. Raises SettingsError with every fault."""

    prompts: Sequence[str]
    max_new_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = _prompt_problems(self.prompts)
        for field, low, high, kinds in (
            ("max_new_tokens", 1, 512, (int,)),
            ("temperature", 0, 5, (int, float)),
            ("seed", 0, 2**31 - 1, (int,)),
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                problems.append(Problem(field, value, f"{low} to {high}", f"{field} must be {low} to {high}."))
        if problems:
            raise SettingsError(problems)


def ask_saved(executor: Executor, row: RunRow, folder: Path, question: Question) -> dict[str, Any]:
    """Load the base model and what the run has saved, and let both answer. Raises RunError when that takes long."""

    def answer() -> dict[str, Any]:
        from tuning.training.generate import answers

        return answers(
            folder, row.plan["model"]["path"], row.settings["method"]["name"], question.prompts,
            question.max_new_tokens, question.temperature, question.seed,
        )  # fmt: skip

    return executor.between(answer, timeout=ASK_SECONDS)


def ask_live(handle: RunHandle, row: RunRow, question: Question) -> dict[str, Any]:
    """Let a run that trains answer between two updates. Raises RunError when it ends first, or takes long."""
    answer: Future[dict[str, Any]] = Future()

    def put(model: Any, tokenizer: Any, labels: Sequence[str] | None) -> None:
        from tuning.training.generate import live_answers

        try:
            said = live_answers(
                model, tokenizer, row.plan["model"]["path"], row.settings["method"]["name"], question.prompts,
                question.max_new_tokens, question.temperature, question.seed, labels,
            )  # fmt: skip
        except Exception as error:
            answer.set_exception(RunError(f"{row.name} could not answer: {error}"))
        else:
            answer.set_result(said)

    handle.commands.ask(put)
    return _awaited(answer, lambda: handle.wait(LOOK_SECONDS) is not None, row.name)


def _awaited(answer: "Future[dict[str, Any]]", ended: Callable[[], bool], name: str) -> dict[str, Any]:
    for _ in range(round(ASK_SECONDS / LOOK_SECONDS)):
        over = ended()
        if answer.done():
            return answer.result()
        if over:
            raise RunError(f"{name} ended before it could answer. Ask again: its saved model answers now.")
    raise RunError(f"No answer within {ASK_SECONDS:.0f} seconds: {name} is busy with a long update. Ask again later.")


def _prompt_problems(prompts: Any) -> list[Problem]:
    good = isinstance(prompts, Sequence) and not isinstance(prompts, str) and 1 <= len(prompts) <= PROMPT_COUNT
    if good and all(isinstance(p, str) and p.strip() and len(p) <= PROMPT_LENGTH for p in prompts):
        return []
    limit = f"1 to {PROMPT_COUNT} texts of 1 to {PROMPT_LENGTH} characters"
    return [Problem("prompts", prompts, limit, f"Type something to ask: {limit}.")]
