"""The contract of every recipe: its name, its settings, the two forms in which it writes a row, and its measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tuning.methods.recipes import RECIPES, read_recipe, recipe_named
from tuning.methods.recipes.base import Recipe
from tuning.text import Row

ROWS = [Row(prompt=f"question {index}", completion=f" answer {index}.") for index in range(6)]
every = pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])


def answers(prompts: Sequence[str]) -> list[tuple[str, float]]:
    """A base model that knows every second answer, more and more surely."""
    return [(f"answer {index}." if index % 2 else "no idea", index / 10) for index in range(len(prompts))]


def preferences(prompts: Sequence[str], first: str, second: str | None) -> list[float]:
    return [index / 10 for index in range(len(prompts))]


def test_no_two_recipes_have_one_name() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


@every
def test_it_names_itself_and_its_source(recipe: Recipe[Any]) -> None:
    assert recipe_named(recipe.name) is recipe
    assert recipe.title and recipe.card and recipe.source


@every
def test_its_settings_have_defaults_and_refuse_what_they_do_not_know(recipe: Recipe[Any]) -> None:
    settings, problems = read_recipe({"name": recipe.name})
    assert settings == recipe.settings() and not problems and recipe.settings().name == recipe.name
    settings, problems = read_recipe({"name": recipe.name, "no_such_setting": 1})
    assert settings is None and [problem.field for problem in problems] == ["recipe.no_such_setting"]


@every
def test_it_writes_each_row_in_one_of_its_two_forms_and_changes_no_prompt(recipe: Recipe[Any]) -> None:
    before, settings = list(ROWS), recipe.settings()
    written = recipe.prepare(ROWS, settings, answers)
    assert before == ROWS, "the rows that it is given stay as they are"
    assert [row.prompt for row in written] == [row.prompt for row in ROWS]
    forms = [recipe.forms(row, settings) for row in ROWS]
    assert all(row in both for row, both in zip(written, forms, strict=True))
    known = [row == both[0] for row, both in zip(written, forms, strict=True)]
    assert any(known) and not all(known), "what the base model answers decides between them"


@every
def test_its_measures_are_finite_numbers_by_name(recipe: Recipe[Any]) -> None:
    measures = recipe.measure(ROWS, recipe.settings(), answers, preferences)
    assert measures and all(math.isfinite(value) for value in measures.values())
