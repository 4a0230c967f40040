"""What does not combine is refused before Start, naming field, limit and fix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.method_matrix import BERT, CLASSES, LLAMA, MatrixJobs
from tuning.core.errors import SettingsError, TuningError
from tuning.core.hardware import named_device
from tuning.methods import METHODS
from tuning.plan.inputs import open_inputs
from tuning.plan.plan import make_plan, plan_for

PROMPTS = ("prompt_tuning", "prefix_tuning", "p_tuning")
REFUSED = [
    ("rank above the width", {"method": {"name": "lora", "r": 33}}, "method.r", "16"),
    ("rank above the width", {"method": {"name": "qlora", "r": 33}}, "method.r", "16"),
    (
        "targets match nothing",
        {"method": {"name": "lora", "target_modules": "elbow"}},
        "method.target_modules",
        "q_proj",
    ),
    ("targets match nothing", {"method": {"name": "galore", "targets": "elbow"}}, "method.targets", "q_proj"),
    ("targets match nothing", {"method": {"name": "partial", "modules": "elbow"}}, "method.modules", "q_proj"),
    ("too many blocks", {"method": {"name": "partial", "last_blocks": 3}}, "method.last_blocks", "2"),
    (
        "nothing to train",
        {"method": {"name": "partial", "last_blocks": 0, "final_norm": False}},
        "method.last_blocks",
        "1",
    ),
    ("dora on pissa", {"method": {"name": "lora", "dora": True, "init": "pissa"}}, "method.init", "default"),
    ("pissa in 4 bits", {"method": {"name": "qlora", "init": "pissa"}}, "method.init", "default"),
    ("head of the other task", {"method": {"name": "feature_extraction", "head": "mlp"}}, "method.head", "lm_head"),
    (
        "head of the other task",
        {"task": CLASSES, "method": {"name": "feature_extraction", "head": "lm_head"}},
        "method.head",
        "linear",
    ),
    (
        "nothing to recompute",
        {"method": {"name": "feature_extraction"}, "gradient_checkpointing": True},
        "gradient_checkpointing",
        "false",
    ),
    ("wide bottleneck", {"method": {"name": "adapter", "bottleneck": 33}}, "method.bottleneck", "32"),
    *(
        (
            "prompt longer than the context",
            {"method": {"name": name, "virtual_tokens": 65}},
            "method.virtual_tokens",
            "64",
        )
        for name in PROMPTS
    ),
    *(
        (
            "init text without text",
            {"method": {"name": name, "init": "text", "init_text": " "}},
            "method.init_text",
            "words",
        )
        for name in PROMPTS
    ),
    (
        "prefix and checkpointing",
        {"method": {"name": "prefix_tuning"}, "gradient_checkpointing": True},
        "gradient_checkpointing",
        "false",
    ),
    (
        "prefix on an encoder",
        {"method": {"name": "prefix_tuning"}, "task": CLASSES, "model": BERT},
        "method.name",
        "lora",
    ),
    ("prompt tuning for classes", {"method": {"name": "prompt_tuning"}, "task": CLASSES}, "task", "causal_lm"),
    ("rank 0", {"method": {"name": "galore", "rank": 0}}, "method.rank", "1 to"),
    ("galore rank above the width", {"method": {"name": "galore", "rank": 33}}, "method.rank", "16"),
    ("galore and sgd", {"method": {"name": "galore"}, "optimizer": {"name": "sgd"}}, "optimizer.name", "adamw"),
    (
        "layer by layer with accumulation",
        {"method": {"name": "galore", "layerwise": True}},
        "method.layerwise",
        "false",
    ),
    (
        "layer by layer with clipping",
        {"method": {"name": "galore", "layerwise": True}, "gradient_accumulation_steps": 1},
        "optimizer.max_grad_norm",
        "layerwise",
    ),
    (
        "few-shot longer than the context",
        {"method": {"name": "prompt_engineering", "shots": 40}},
        "method.shots",
        "fewer",
    ),
    (
        "more shots than rows",
        {"method": {"name": "prompt_engineering", "shots": 64}, "data": {"train_rows": 9}},
        "method.shots",
        "9",
    ),
    (
        "template without a place",
        {"method": {"name": "prompt_engineering", "template": "hm"}},
        "method.template",
        "{prompt}",
    ),
    ("prompting for classes", {"method": {"name": "prompt_engineering"}, "task": CLASSES}, "task", "causal_lm"),
    ("retrieval without passages", {"method": {"name": "retrieval"}}, "method.index", "JSONL"),
    (
        "retrieval from nowhere",
        {"method": {"name": "retrieval", "index": "./nowhere.jsonl"}},
        "method.index",
        "no file",
    ),
    ("flex on a processor", {"attention": "flex"}, "attention", "sdpa"),
    ("flash on a processor", {"attention": "flash"}, "attention", "sdpa"),
    ("bf16 products", {"method": {"name": "qlora", "compute_dtype": "fp16"}}, "method.compute_dtype", "fp32"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return MatrixJobs(tmp_path_factory.mktemp("refused"))


@pytest.mark.parametrize(
    ("what", "changes", "field", "words"), REFUSED, ids=[f"{i}-{r[0]}" for i, r in enumerate(REFUSED)]
)
def test_it_is_refused_with_a_sentence(world, what, changes, field, words) -> None:
    model = str(world.models[changes.get("model", LLAMA)])
    with pytest.raises(TuningError) as caught:
        plan_for(world.settings(**(changes | {"model": model})))
    found = {problem.field: problem for problem in caught.value.problems}
    assert field in found, found
    problem = found[field]
    assert words in problem.message and len(problem.message) > 25 and problem.limit


def test_four_bits_on_a_card_without_bf16_ask_for_another_dtype(world) -> None:
    inputs = open_inputs(world.settings(model=str(world.models[LLAMA]), method={"name": "qlora"}))
    with pytest.raises(SettingsError, match="fp16"):
        make_plan(replace(inputs, device=named_device("T4 16 GB")))


def test_passages_that_cannot_be_read_are_refused(world, tmp_path) -> None:
    file = tmp_path / "index.jsonl"
    for text, words in (("", "no passages"), ("{oops", "line 1"), ('{"a": 1}', "no passage")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match=words):
            plan_for(world.settings(model=str(world.models[LLAMA]), method={"name": "retrieval", "index": str(file)}))
    file.write_text('{"passage": "the red dog"}', encoding="utf-8")
    for more, words in (({"top_k": 2}, "1 passages"), ({"misleading_share": 0.5}, "misleading")):
        method = {"name": "retrieval", "index": str(file), **more}
        with pytest.raises(SettingsError, match=words):
            plan_for(world.settings(model=str(world.models[LLAMA]), method=method))


def test_every_method_says_what_it_is_and_why_its_rate() -> None:
    from tuning.core.fields import fields_of

    for method in METHODS:
        assert len(method.card) > 80 and method.source and len(method.learning_rate_reason) > 20, method.name
        for field in fields_of(method.settings, "method.").values():
            assert field.path == "method.name" or len(field.help) > 20, (method.name, field.path)
