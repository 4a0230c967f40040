"""R-Tuning: rows split by what the base knows, both forms, its measures, and a run with it."""

from __future__ import annotations

import pytest

from support.method_matrix import MatrixJobs, read_ids
from support.method_matrix import Row as Line
from support.tiny_jobs import run
from support.tiny_models import ENCODERS, SMALL, tiny_model
from tuning.core.errors import SettingsError
from tuning.methods.recipes import RECIPES, read_recipe, recipe_named
from tuning.methods.recipes.r_tuning import auroc, average_precision, contains
from tuning.plan.plan import plan_for
from tuning.text import Row, TextTokenizer
from tuning.text.prompts import prompt_ids

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
    world = MatrixJobs(tmp_path)
    job = world.of(
        Line(method={"name": "full"}),
        recipe={"name": "r_tuning", "form": form},
        max_steps=20,
        eval={"every": None, "max_new_tokens": 6, "max_seconds": 600},
    )
    state, events = run(job)
    assert state == "finished", events[-1].data
    evals = [event.data for event in events if event.kind == "eval"]
    assert evals[-1]["loss"] < evals[0]["loss"]
    asked = {"answer_rate", "accuracy", "invented", "average_precision", "auroc"}
    ends = (evals[0], evals[-1])  # what is between them is measured without asking
    assert all(asked <= set(one["metrics"]) for one in ends)
    assert all(0 <= one["metrics"][name] <= 1 for one in ends for name in asked)


def test_prompts_beyond_the_models_positions_are_asked_by_their_end(tmp_path) -> None:
    """Learned positions end: a prompt that leaves no room is cut at its beginning, never an index out of range."""
    from transformers import AutoModelForCausalLM

    from tuning.training.confidence import answers_with_confidence, preferences

    folder = tiny_model("gpt2", tmp_path / "gpt2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), TextTokenizer(folder)
    long = "red dog " * 200
    ((_, sure),) = answers_with_confidence(model, tokenizer, [long], 32)
    assert 0 <= sure <= 1
    assert 0 <= preferences(model, tokenizer, [long], " cat", None)[0] <= 1


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ENCODERS])
def test_only_the_last_place_of_a_question_goes_through_the_output_layer(tmp_path, kind) -> None:
    """With the same answer as from the logits of all places."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuning.training.confidence import answers_with_confidence, preferences

    folder = tiny_model(kind, tmp_path / kind)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), TextTokenizer(folder)
    question, widths = "the red dog sees a big tree", []
    ids = torch.tensor([tokenizer.encode(question)])
    with torch.no_grad():
        spread = torch.softmax(model(input_ids=ids).logits[0, -1].float(), -1)
    watch = model.get_output_embeddings().register_forward_hook(lambda *call: widths.append(call[2].shape[-2]))
    (liked,) = preferences(model, tokenizer, [question], "cat", None)
    ((_, sure),) = answers_with_confidence(model, tokenizer, [question], 1)
    watch.remove()
    assert widths and set(widths) == {1}
    assert liked == pytest.approx(float(spread[tokenizer.encode("cat")[0]]), rel=1e-5)
    assert sure == pytest.approx(float(spread.max()), rel=1e-5) or int(spread.argmax()) == tokenizer.eos_id


def test_a_recipe_asks_as_training_reads_system_prompt_included(tmp_path) -> None:
    from tuning.data import open_data
    from tuning.training.base_answers import prepared_rows, recipe_metrics
    from tuning.training.build import load_base

    world = MatrixJobs(tmp_path)
    recipe = {"name": "r_tuning", "form": "certainty"}
    plan = world.of(Line(method={"name": "full"}), recipe=recipe, data={"system_prompt": "always runs"}).plan
    rows = list(open_data(plan.settings.data, "causal_lm", 0).train)[:3]
    tokenizer = TextTokenizer(plan.model.path)
    expected = [prompt_ids(row, tokenizer, "always runs") for row in rows]
    assert all(tokenizer.decode(one).startswith("always runs") for one in expected)
    import torch

    with read_ids() as prepared:
        prepared_rows(plan, rows, tokenizer, lambda done, total: True)
    assert prepared == expected
    model = load_base(plan.model.path, class_names=None, attention="sdpa", dtype=torch.float32, pad_id=0)
    with read_ids() as measured:
        recipe_metrics(plan, model, rows, tokenizer)
    assert measured[:3] == expected and len(measured) == 6, "three answers, and three times how sure they are"
    assert all(sure[: len(one)] == one for sure, one in zip(measured[3:], expected, strict=True))
