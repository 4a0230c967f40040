"""The tensors of a base model's files are the model's: nothing but a new head is ever random, and what is left out is
told before Start. The reference is the library's own load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from support.tiny_models import changed, labelled_rows, tiny_model, without
from tuning.core.errors import ModelError, Notice, SettingsError
from tuning.plan.plan import Plan, plan_for

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensors")
    labelled_rows(folder / "rows.jsonl")
    tiny_model("llama", folder / "llama", tie_word_embeddings=False)
    tiny_model("llama", folder / "tied", tie_word_embeddings=True)
    for family in ("bert", "distilbert", "gpt2"):
        tiny_model(family, folder / family) if family != "distilbert" else tiny_distilbert(folder / family)
    return folder


def tiny_distilbert(folder: Path) -> None:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    from support.tiny_models import tiny_tokenizer, vocabulary

    config = DistilBertConfig(
        dim=32, hidden_dim=64, n_layers=2, n_heads=4, vocab_size=len(vocabulary()), max_position_embeddings=64
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        DistilBertForMaskedLM(config).save_pretrained(folder)
    tiny_tokenizer(folder, frame=True)


def plan_of(folder: Path, task: str = "causal_lm", **changes: Any) -> Plan:
    columns = {"prompt": "prompt", "completion": "completion"}
    if task == "sequence_classification":
        columns = {"text": "text", "label": "label"}
    rows = next(parent for parent in folder.parents if (parent / "rows.jsonl").is_file()) / "rows.jsonl"
    plain = {
        "model": str(folder),
        "task": task,
        "data": {"source": str(rows), "columns": columns, "max_seq_length": 48},
        "method": {"name": "full"},
        "max_steps": 2,
        "device": "cpu",
    }
    return plan_for(plain | changes)


def renamed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def packed(state: State) -> State:
    changed_state: State = {}
    for name, tensor in state.items():
        if "proj" in name:
            changed_state[name.replace(".weight", ".qweight")] = torch.zeros(4, 4, dtype=torch.int32)
            changed_state[name.replace(".weight", ".scales")] = torch.ones(1, 4).half()
        else:
            changed_state[name] = tensor
    return changed_state


def in_eight_bits(state: State) -> State:
    changed_state: State = {}
    for name, tensor in state.items():
        changed_state[name] = tensor.to(torch.float8_e4m3fn) if "proj" in name else tensor
        if "proj" in name:
            changed_state[name + "_scale_inv"] = torch.ones(1)
    return changed_state


def as_integers(state: State) -> State:
    return {name: (tensor * 100).to(torch.int8) if "up_proj" in name else tensor for name, tensor in state.items()}


def wider(state: State) -> State:
    return {name: torch.cat([tensor, tensor], 1) if "up_proj" in name else tensor for name, tensor in state.items()}


def same(state: State) -> State:
    return state


def with_lora(state: State) -> State:
    return {
        f"base_model.model.{name.replace('.weight', '.base_layer.weight')}": tensor for name, tensor in state.items()
    }


WRONG: list[tuple[str, Callable[[State], State], dict[str, Any], str]] = [
    ("compiled", renamed("_orig_mod."), {}, r"_orig_mod\.lm_head\.weight.*compiled"),
    ("data parallel", renamed("module."), {}, r"module\.lm_head\.weight.*DataParallel"),
    ("with an adapter", with_lora, {}, "merge_and_unload"),
    ("one missing", without("layers.1.mlp.down_proj"), {}, r"1 tensor is not.*layers\.1\.mlp\.down_proj\.weight"),
    ("no head", without("lm_head"), {}, "lm_head.weight.*tie_word_embeddings"),
    ("fewer layers", same, {"num_hidden_layers": 1}, "file has 2 layers and config.json says 1"),
    ("more layers", same, {"num_hidden_layers": 3}, r"not in the file and would be random: model\.layers\.2"),
    ("old gptq", packed, {}, "packed weights.*qweight"),
    ("fp8 with scales", in_eight_bits, {}, "F8_E4M3, with scales"),
    ("whole numbers", as_integers, {}, "whole numbers, not weights"),
    ("other sizes", wider, {}, "64 x 64 in the file and 64 x 32 by config"),
    ("tied, and two in the file", same, {"tie_word_embeddings": True}, "set tie_word_embeddings to false"),
]


def notices_of_the_model(plan: Plan) -> list[Notice]:
    """What a plan tells of its base model; of the rows it may tell something too."""
    return [notice for notice in plan.notices if notice.field == "model"]


@pytest.mark.parametrize(("change", "config", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_file_that_is_not_the_models_is_refused_by_name_before_start(
    models: Path, change: Callable[[State], State], config: dict[str, Any], words: str
) -> None:
    folder = changed(models, change, **config)
    with pytest.raises(ModelError, match=words) as refusal:
        plan_of(folder)
    assert refusal.value.problems[0].field == "model"


AT_LOAD = [case for case in WRONG if case[0] not in ("fp8 with scales", "tied, and two in the file")]


@pytest.mark.parametrize(
    ("change", "config", "words"), [case[1:] for case in AT_LOAD], ids=[case[0] for case in AT_LOAD]
)
def test_it_is_refused_again_where_the_weights_are_loaded(
    models: Path, change: Callable[[State], State], config: dict[str, Any], words: str
) -> None:
    from tuning.training.build import load_base

    folder = changed(models, change, **config)
    with pytest.raises(ModelError):
        load_base(str(folder), class_names=None, attention="sdpa", dtype=torch.float32, pad_id=0)


@pytest.mark.parametrize("maker", ["AutoModel", "AutoModelForSequenceClassification"])
def test_a_body_or_a_classifier_alone_does_not_write(models: Path, maker: str) -> None:
    import transformers

    folder = models / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / "llama", folder)
    getattr(transformers, maker).from_pretrained(models / "llama").save_pretrained(folder)
    with pytest.raises(ModelError, match="no output layer"):
        plan_of(folder)


def test_a_tied_model_needs_no_output_layer_and_a_second_equal_one_is_fine(models: Path) -> None:
    assert notices_of_the_model(plan_of(models / "tied")) == []

    def twice(state: State) -> State:
        return state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}

    assert notices_of_the_model(plan_of(changed(models, twice, "tied"))) == []


def test_buffers_of_older_versions_give_no_notice(models: Path) -> None:
    def older(state: State) -> State:
        return state | {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}

    assert notices_of_the_model(plan_of(changed(models, older, "gpt2"))) == []


def test_a_new_head_and_a_head_of_no_use_are_reported_by_count(models: Path) -> None:
    notices = [
        (notice.count, notice.message) for notice in plan_of(models / "llama", "sequence_classification").notices
    ]
    assert any(count == 1 and "score.weight" in message and "new" in message for count, message in notices)
    assert any(count == 1 and "lm_head.weight" in message and "left out" in message for count, message in notices)
    assert not notices_of_the_model(plan_of(models / "llama"))


def test_an_adapter_beside_a_whole_model_is_refused(models: Path) -> None:
    folder = changed(models, same)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="an adapter beside"):
        plan_of(folder)


def test_a_layer_before_the_head_that_the_file_lacks_is_trained_or_refused(models: Path) -> None:
    """BERT's pooler, which a masked language model is saved without: LoRA would leave it random, and not save it."""
    folder = changed(models, without("pooler"), "bert")
    notices = [notice.message for notice in plan_of(folder, "sequence_classification").notices]
    assert any("bert.pooler.dense.weight" in message for message in notices)
    with pytest.raises(SettingsError, match="lacks the layer before its head") as refused:
        plan_of(folder, "sequence_classification", method={"name": "lora"})
    assert refused.value.problems[0].field == "method.name"


@pytest.mark.parametrize("method", ["lora", "ia3"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_saved_adapter_holds_the_whole_new_head(models: Path, tmp_path: Path, family: str, method: str) -> None:
    """Two bases with other random heads, and the same logits once the adapter is on them."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from tuning.methods import method_named
    from tuning.training.build import base_of

    plan = plan_of(models / family, "sequence_classification", method={"name": method})
    chosen = method_named(method)
    with torch.random.fork_rng():
        model: Any = chosen.apply(
            base_of(plan.settings, plan.model.path, ("no", "yes"), 0),
            plan.settings.method,
            plan.settings.task,
        )
        assert sum(w.numel() for w in model.parameters() if w.requires_grad) == plan.value("trainable_parameters")
        chosen.save(model, tmp_path)
        torch.manual_seed(99)
        other = AutoModelForSequenceClassification.from_pretrained(models / family, num_labels=2)
        loaded = PeftModel.from_pretrained(other, tmp_path)
    ids = torch.tensor([[4, 8, 9, 10, 5]])
    with torch.no_grad():
        assert torch.allclose(model.eval()(input_ids=ids).logits, loaded.eval()(input_ids=ids).logits, atol=1e-6)


# -- a base model that is a classifier ------------------------------------------------------------------------------
def classifier(models: Path, names: list[str], base: str = "bert") -> Path:
    from transformers import AutoModelForSequenceClassification

    folder = models / "classifier"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / base, folder)
    labels = dict(enumerate(names))
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = AutoModelForSequenceClassification.from_pretrained(
            models / base,
            num_labels=len(names),
            id2label=labels,
            label2id={name: key for key, name in labels.items()},
        )
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("base", ["bert", "llama"])
@pytest.mark.parametrize("names", [["no", "yes"], ["yes", "no"]])
def test_a_classifier_of_the_same_classes_keeps_its_head_by_their_names(
    models: Path, base: str, names: list[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    from tuning.training.build import base_of

    folder = classifier(models, names, base)
    plan = plan_of(folder, "sequence_classification")
    assert any("head is kept" in notice.message for notice in plan.notices)
    labels = plan.data.label_names
    assert labels is not None
    ids = torch.tensor([[4, 8, 9, 10, 5]])
    with torch.no_grad():
        theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        ours: Any = base_of(plan.settings, plan.model.path, labels, 0).eval()
        expected = dict(zip(names, theirs(input_ids=ids).logits[0].tolist(), strict=True))
        result = dict(zip(labels, ours(input_ids=ids).logits[0].tolist(), strict=True))
    assert result == pytest.approx(expected, abs=1e-6)
    assert [ours.config.id2label[i] for i in range(2)] == list(labels)


@pytest.mark.parametrize("names", [["up", "down"], ["a", "b", "c"]])
def test_a_classifier_of_other_classes_gets_a_new_head_and_that_is_reported(models: Path, names: list[str]) -> None:
    from tuning.training.build import base_of

    folder = classifier(models, names)
    plan = plan_of(folder, "sequence_classification")
    assert any(f"sorts into {len(names)} classes" in notice.message for notice in plan.notices)
    old = load_file(folder / "model.safetensors")["classifier.weight"]
    heads = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model: Any = base_of(plan.settings, plan.model.path, plan.data.label_names, 0)
        heads.append(model.classifier.weight.detach())
        assert model.classifier.weight.shape == (2, 32) and 0.005 < float(heads[-1].std()) < 0.05
        assert dict(model.config.id2label) == {0: "no", 1: "yes"}
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert old.shape != heads[0].shape or not torch.equal(old, heads[0])


# -- vocabulary, positions, cost ------------------------------------------------------------------------------------
def test_a_padding_token_without_an_embedding_is_replaced_and_reported(models: Path) -> None:
    from tuning.text import TextTokenizer

    folder = changed(models, same)
    add_tokens(folder, "[PAD]")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "[PAD]"}))
    size = plan_of(folder).model.shape.vocab_size
    notices = [notice.message for notice in notices_of_the_model(plan_of(folder))]
    assert len(notices) == 1 and f"{size + 1} tokens" in notices[0] and f"embeddings for {size}" in notices[0]
    assert TextTokenizer(folder).pad_id < size


def test_where_the_end_has_no_embedding_either_rows_are_filled_up_with_a_token_that_has_one(models: Path) -> None:
    """It broke off in the first update: IndexError, index out of range."""
    from tuning.text import TextTokenizer

    folder = changed(models, same)
    add_tokens(folder, "[PAD]", "[END]")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "[PAD]", "eos_token": "[END]"}))
    tokenizer, size = TextTokenizer(folder), json.loads((folder / "config.json").read_text())["vocab_size"]
    assert tokenizer.eos_id >= size > tokenizer.pad_id


def test_another_token_without_an_embedding_is_refused_with_both_sizes(models: Path) -> None:
    folder = changed(models, same)
    add_tokens(folder, "<tool>")
    with pytest.raises(ModelError, match="'<tool>' would have none") as refusal:
        plan_of(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert f"{size:,}" in str(refusal.value) and f"{size + 1:,}" in str(refusal.value)


def add_tokens(folder: Path, *names: str) -> None:
    plain = json.loads((folder / "tokenizer.json").read_text())
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    for i, name in enumerate(names):
        record = dict(content=name, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        plain["added_tokens"].append({"id": size + i} | record)
    (folder / "tokenizer.json").write_text(json.dumps(plain))


def test_a_folder_is_compared_once_and_then_cached(models: Path) -> None:
    import time

    from tuning.models import weights

    plan_of(models / "llama")
    questions: list[Any] = []
    ask, weights._COMPARER.ask = weights._COMPARER.ask, lambda question: questions.append(question)  # type: ignore
    try:
        began = time.perf_counter()
        weights.compare_weights(plan_of(models / "llama").model, "causal_lm")
        assert time.perf_counter() - began < 1.0 and not questions
    finally:
        weights._COMPARER.ask = ask  # type: ignore[method-assign]


def test_the_bundled_models_comparison_is_shipped() -> None:
    """Else the first look at the page would wait for the libraries. Made by assets/make/weight_reports.py."""
    from tuning.models.base_model import model_catalogue
    from tuning.models.weights import _key, _shipped, weight_files

    for model in model_catalogue():
        for task in model.tasks:
            assert _key(model.path, weight_files(Path(model.path)), task) in _shipped()
