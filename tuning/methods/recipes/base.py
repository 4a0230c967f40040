"""What a recipe is: a way to prepare the training rows, with settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tuning.core.fields import SettingsBlock
from tuning.text import Row

Answer = Callable[[Sequence[str]], Sequence[tuple[str, float]]]
"""The base model's own answer to each prompt, and the chance it gives the whole answer, 0 to 1."""
Prefer = Callable[[Sequence[str], str, str | None], Sequence[float]]
"""The chance of the first of two continuations against the second, or against all others, for each prompt."""


class RecipeSettings(SettingsBlock):
    """The settings of one recipe, each with its help in the string under it."""

    name: str
    """The recipe's word in settings."""


S = TypeVar("S", bound=RecipeSettings)


class Recipe(Protocol[S]):
    """One way to prepare the training rows."""

    name: str
    title: str
    card: str
    """One paragraph for people: what it does, what it is good for."""
    source: str
    settings: type[S]

    def prepare(self, rows: Sequence[Row], settings: S, answer: Answer) -> list[Row]:
        """The rows with the answers to learn."""

    def forms(self, row: Row, settings: S) -> tuple[Row, Row]:
        """The row in both ways that `prepare` may write it: as known to the base model, and as not known."""

    def measure(self, rows: Sequence[Row], settings: S, answer: Answer, prefer: Prefer) -> dict[str, float]:
        """After the training: figures by name, over questions with their true answers."""
