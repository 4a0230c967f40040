"""Recipes: ways to prepare the training rows that go with any trained method. One tuple, as for methods."""

from __future__ import annotations

from typing import Any

from tuning.core.errors import Problem
from tuning.core.fields import read_block
from tuning.methods.recipes import r_tuning
from tuning.methods.recipes.base import Recipe, RecipeSettings

RECIPES: tuple[Recipe[Any], ...] = (r_tuning.RECIPE,)


def recipe_named(name: str) -> Recipe[Any]:
    """The recipe of that name; raises KeyError."""
    return {recipe.name: recipe for recipe in RECIPES}[name]


def read_recipe(given: dict[str, Any] | None) -> tuple[RecipeSettings | None, list[Problem]]:
    """The recipe's own settings from a JSON object, and what is wrong with them; None without a recipe."""
    if given is None:
        return None, []
    names = ", ".join(recipe.name for recipe in RECIPES)
    if given.get("name") not in [recipe.name for recipe in RECIPES]:  # a list: the name may be anything
        message = f"no recipe is named {given.get('name')!r:.60}; use {names}, or leave recipe empty."
        return None, [Problem("recipe.name", given.get("name"), names, message)]
    block, problems, _ = read_block(recipe_named(given["name"]).settings, given, "recipe.")
    return (None, problems) if problems else (block, [])
