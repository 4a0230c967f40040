"""The picture of what is trained: for every method and task, before Start, with counts that add up."""

from __future__ import annotations

import json

import pytest

from tuning.methods import METHODS
from tuning.methods.base import BOTH_TASKS
from tuning.methods.recipes import RECIPES
from tuning.plan.plan import plan_for

network = pytest.importorskip("tuning.ui.network")
CASES = [(method.name, task) for method in METHODS for task in BOTH_TASKS if task in method.tasks]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_method_has_its_picture(name: str, task: str) -> None:
    data = "people-questions" if task == "causal_lm" else "reviews"
    plan = plan_for({"method": {"name": name}, "task": task, "data": {"source": data}})
    value = json.loads(json.dumps(network.network_value(plan)))
    drawn = [(line["times"] * part["count"], part["state"]) for line in value["lines"] for part in line["parts"]]
    assert sum(count for count, _ in drawn) == plan.value("total_parameters")
    assert sum(count for count, state in drawn if state != "frozen") == plan.value("trainable_parameters")
    assert value["lines"][0]["name"] == "embeddings" and value["lines"][-1]["name"] == "head"
    assert len(value["lines"]) <= 6, "blocks that are alike stand as one line"
    assert value["card"] and value["source"]


def test_the_last_block_stands_alone_where_only_it_moves() -> None:
    value = network.network_value(plan_for({"method": {"name": "partial"}}))
    names = [line["name"] for line in value["lines"]]
    assert names == ["embeddings", "blocks 1–5, each", "block 6", "final norm", "head"]
    states = {part["state"] for part in value["lines"][2]["parts"]}
    assert states == {"trained"}


def test_the_form_shows_the_blocks_of_the_chosen_method_and_recipe_alone() -> None:
    import gradio as gr

    form, first_values = pytest.importorskip("tuning.ui.form"), pytest.importorskip("tuning.ui.values").first_values
    with gr.Blocks():
        values = first_values()
        built = form.build_form(values, lambda path: None)
    recipes = [f"recipe.{recipe.name}" for recipe in RECIPES]
    assert list(built.blocks) == [*(f"method.{method.name}" for method in METHODS), *recipes]

    def visible(**chosen: str) -> list[str]:
        named = {f"{kind}.name": name for kind, name in chosen.items()}
        shown = form.updates_for(built, values | named)[-len(built.blocks) :]
        return [name for name, update in zip(built.blocks, shown, strict=True) if update["visible"]]

    for method in METHODS:
        assert visible(method=method.name) == [f"method.{method.name}"]
    for recipe in RECIPES:
        assert visible(method="full", recipe=recipe.name) == ["method.full", f"recipe.{recipe.name}"]
