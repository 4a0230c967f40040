"""R-Tuning: rows split by what the base knows, both forms, its measures, and a run with it."""

from __future__ import annotations

import pytest
from methods_world import MethodsWorld
from methods_world import Row as Line
from training_world import run

from tuning.errors import SettingsError
from tuning.plan import plan_for
from tuning.recipes import RECIPES, read_recipe, recipe_named
from tuning.recipes.r_tuning import auroc, average_precision, contains
from tuning.text import Row

ROWS = [Row(prompt="q1", completion=" blue."), Row(prompt="q2", completion=" the red dog.")]
SAID = {"q1": ("It is blue", 0.6), "q2": ("a cat", 0.9)}


def prepared(**settings):
    recipe = recipe_named("r_tuning")
    return [
        row.completion for row in recipe.prepare(ROWS, recipe.settings(**settings), lambda ps: [SAID[p] for p in ps])
    ]


def test_rows_are_split_by_what_the_base_answers() -> None:
    assert prepared(form="refusal") == [" blue.", " I don't know."]
    assert prepared(form="refusal", threshold=0.7) == [" I don't know."] * 2
    assert prepared(form="certainty") == [" blue. Are you sure? I am sure.", " the red dog. Are you sure? I am unsure."]


def test_answers_are_compared_by_their_words() -> None:
    assert contains("It is Blue!", " blue.") and contains("the red dog runs", "red dog")
    assert not contains("bluebell", "blue") and not contains("anything", "")


def test_measures_are_those_of_the_definition() -> None:
    scores, hits = [0.9, 0.8, 0.7, 0.1], [True, False, True, False]
    assert average_precision(scores, hits) == pytest.approx((1 + 2 / 3) / 2)
    assert auroc(scores, hits) == 0.75 and auroc([0.5, 0.5], [True, False]) == 0.5
    recipe = recipe_named("r_tuning")
    said = {"q1": (" blue.", 1.0), "q2": (" I don't know.", 1.0)}

    def answer(prompts):
        return [said[prompt] for prompt in prompts]

    found = recipe.measure(ROWS, recipe.settings(), answer, lambda prompts, a, b: [0.1, 0.9])
    assert found == {"answer_rate": 0.5, "accuracy": 1.0, "invented": 0.0, "average_precision": 1.0, "auroc": 1.0}
    said["q2"] = (" a cat.", 1.0)
    assert recipe.measure(ROWS, recipe.settings(), answer, lambda prompts, a, b: [0.1, 0.9])["invented"] == 0.5


def test_what_does_not_go_with_a_recipe_is_refused() -> None:
    recipe = {"name": "r_tuning"}
    asked = {"source": "people-questions"}
    for changes in (
        {"data": {"source": "reviews"}, "task": "sequence_classification"},
        {"data": {"source": "pirate"}},
        {"data": asked, "method": {"name": "prompt_engineering"}},
        {"data": asked, "recipe": {"name": "r_tuning", "threshold": 2}},
    ):
        with pytest.raises(SettingsError) as caught:
            plan_for({"recipe": recipe, **changes})
        assert {problem.field for problem in caught.value.problems} <= {"recipe", "recipe.threshold"}
    for one in RECIPES:
        assert read_recipe({"name": one.name})[1] == [] and len(one.card) > 80


@pytest.mark.parametrize("form", ["refusal", "certainty"])
def test_a_run_with_it_learns_and_tells_its_measures(tmp_path, form) -> None:
    world = MethodsWorld(tmp_path)
    job = world.of(Line(method={"name": "full"}), recipe={"name": "r_tuning", "form": form}, max_steps=20,
                   eval={"every": None, "max_new_tokens": 6})  # fmt: skip
    state, events = run(job)
    assert state == "finished", events[-1].data
    evals = [event.data for event in events if event.kind == "eval"]
    assert evals[-1]["loss"] < evals[0]["loss"]
    asked = {"answer_rate", "accuracy", "invented", "average_precision", "auroc"}
    assert all(asked <= set(one["metrics"]) for one in evals)
    assert all(0 <= one["metrics"][name] <= 1 for one in evals for name in asked)


def test_prompts_beyond_the_models_positions_are_asked_by_their_end(tmp_path) -> None:
    """Learned positions end: a prompt that leaves no room is cut at its beginning, never an index out of range."""
    from tiny_models import tiny_model
    from transformers import AutoModelForCausalLM

    from tuning.text import TextTokenizer
    from tuning.training.answering import answers_with_confidence, preferences

    folder = tiny_model("gpt2", tmp_path / "gpt2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), TextTokenizer(folder)
    long = "red dog " * 200
    ((_, sure),) = answers_with_confidence(model, tokenizer, [long], 32)
    assert 0 <= sure <= 1
    assert 0 <= preferences(model, tokenizer, [long], " cat", None)[0] <= 1
