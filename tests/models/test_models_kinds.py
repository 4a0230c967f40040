"""Which kinds of model write and which sort: proven on a tiny random model of each, not read off a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.tiny_kinds import kind_config, tiny_kind
from tuning.core.errors import ModelError
from tuning.models.base_model import read_config
from tuning.models.families import FAMILIES
from tuning.models.shapes import shape_from_config

LENGTH, PADS = 12, 5
DECODERS = [kind for kind, family in FAMILIES.items() if family.writes]
DECODERS_IF_TOLD = [kind for kind, family in FAMILIES.items() if family.writes_if_decoder]
CLASSIFIERS = [kind for kind, family in FAMILIES.items() if family.classifies]


def table(task: str) -> list[str]:
    from transformers.models.auto import modeling_auto

    return list(getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))


def row() -> Any:
    import torch

    return torch.randint(5, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))


def attention_to_later(model: Any) -> float:
    """How far the logits of earlier places move when only the last token changes, as a share of the logits' size."""
    import torch

    first = row()
    second = first.clone()
    second[0, -1] = 5 if int(first[0, -1]) != 5 else 6
    with torch.no_grad():
        first_logits, second_logits = (model(input_ids=ids, use_cache=False).logits for ids in (first, second))
    assert (first_logits[:, -1] - second_logits[:, -1]).abs().max() > 0
    return float((first_logits[:, :-1] - second_logits[:, :-1]).abs().max() / first_logits.abs().max())


def padding_moves(model: Any, *, classes: bool) -> float:
    """How far a row's logits move when a longer row stands beside it, as a share of the logits' size."""
    import torch

    ids, pad = row(), model.config.pad_token_id or 0
    both = torch.cat([torch.cat([ids, torch.full((1, PADS), pad)], 1), torch.full((1, LENGTH + PADS), 7)])
    mask = torch.ones_like(both)
    mask[0, LENGTH:] = 0
    options = {} if classes else {"use_cache": False}
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).logits
        beside = model(input_ids=both, attention_mask=mask, **options).logits[:1]
    return float((alone - (beside if classes else beside[:, :LENGTH])).abs().max() / alone.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", DECODERS)
def test_a_kind_that_writes_sees_only_what_stands_before(kind: str) -> None:
    model = tiny_kind(kind)
    assert attention_to_later(model) < 1e-5
    assert padding_moves(model, classes=False) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", DECODERS_IF_TOLD)
def test_these_encoders_see_only_what_stands_before_where_their_config_says_so(kind: str) -> None:
    assert attention_to_later(tiny_kind(kind)) > 1e-3
    model = tiny_kind(kind, is_decoder=True)
    assert attention_to_later(model) < 1e-5
    assert padding_moves(model, classes=False) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_kind_that_sorts_gives_a_row_the_same_classes_beside_a_longer_one(kind: str) -> None:
    assert padding_moves(tiny_kind(kind, "AutoModelForSequenceClassification", num_labels=3), classes=True) < 1e-4


AHEAD = (  # noqa: SIM905
    "bert bert-generation big_bird camembert cpmant data2vec-text electra ernie megatron-bert rembert roberta "
    "roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xlnet"
).split()


@pytest.mark.parametrize("kind", AHEAD)
def test_a_kind_that_looks_ahead_never_writes(kind: str) -> None:
    """All of these stand in the library's table for writing."""
    assert kind in table("CAUSAL_LM")
    assert attention_to_later(tiny_kind(kind)) > 1e-3
    config = {"model_type": kind, **SIZES}
    try:
        assert "causal_lm" not in read_config(config, kind)[1]
    except ModelError:  # it does not sort either
        assert kind not in CLASSIFIERS


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64, "intermediate_size": 64}


@pytest.mark.parametrize("kind", sorted({*table("CAUSAL_LM")} - {*DECODERS}))
def test_what_no_test_has_proven_is_not_taken_for_a_decoder(kind: str) -> None:
    try:
        assert read_config({"model_type": kind, **SIZES}, kind)[1] == ("sequence_classification",)
    except ModelError as error:
        assert kind in str(error) and "Error" not in str(error)


@pytest.mark.parametrize("kind", ["bert", "electra", "roformer", "xlm-roberta"])
def test_an_encoder_writes_where_its_config_says_it_is_a_decoder(kind: str) -> None:
    assert "causal_lm" in read_config({"model_type": kind, "is_decoder": True, **SIZES}, kind)[1]


REFUSED = {
    "t5": "pair of encoder and decoder",
    "mt5": "pair of encoder and decoder",
    "bart": "pair of encoder and decoder",
    "marian": "pair of encoder and decoder",
    "pegasus": "pair of encoder and decoder",
    "whisper": "model of sounds",
    "wav2vec2": "model of sounds",
    "moshi": "model of sounds",
    "mamba": "no attention",
    "mamba2": "no attention",
    "rwkv": "no attention",
    "git": "model of pictures",
    "clip": "model of pictures",
    "vit": "model of pictures",
    "llava": "model of pictures",
    "qwen2_vl": "model of pictures",
    "dbrx": "mixtures of experts",
    "mixtral": "mixtures of experts",
    "xlnet": "padding",
    "convbert": "padding",
    "mobilebert": "padding",
}


@pytest.mark.parametrize(("kind", "words"), REFUSED.items())
def test_a_model_that_is_no_stack_of_blocks_over_text_is_refused_in_one_sentence(kind: str, words: str) -> None:
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    with pytest.raises(ModelError, match=words) as refusal:
        read_config(json.loads(usual.to_json_string(use_diff=False)), f"my-{kind}")
    message = refusal.value.problems[0].message
    assert kind in message and "config.json has none of" not in message and message.count(". ") <= 1


def test_a_pair_by_its_own_word_is_refused_whatever_its_kind() -> None:
    with pytest.raises(ModelError, match="pair of encoder and decoder"):
        read_config({"model_type": "bert", "is_encoder_decoder": True, **SIZES}, "mine")


def test_the_library_has_every_kind_of_the_records() -> None:
    assert {*DECODERS, *DECODERS_IF_TOLD} <= {*table("CAUSAL_LM")}
    assert {*CLASSIFIERS} <= {*table("SEQUENCE_CLASSIFICATION")}
    assert not {*DECODERS} & {*AHEAD}


def test_an_encoder_folder_is_refused_for_writing_before_start(tmp_path: Path) -> None:
    from support.tiny_models import labelled_rows, tiny_tokenizer
    from tuning.core.errors import SettingsError
    from tuning.plan.plan import plan_for

    model = tiny_kind("electra", "AutoModelForMaskedLM")
    model.save_pretrained(tmp_path / "electra")
    tiny_tokenizer(tmp_path / "electra")
    rows = labelled_rows(tmp_path / "rows.jsonl")
    data = {"source": str(rows), "columns": {"text": "text"}, "max_seq_length": 32}
    with pytest.raises(SettingsError, match="cannot write") as refusal:
        plan_for({"model": str(tmp_path / "electra"), "method": {"name": "full"}, "data": data})
    assert refusal.value.problems[0].field == "task"


@pytest.mark.parametrize("kind", sorted({*DECODERS, *DECODERS_IF_TOLD, *CLASSIFIERS}))
def test_the_sizes_of_a_kind_are_read_by_the_names_of_its_own_config(kind: str) -> None:
    config = kind_config(kind)
    shape = shape_from_config(config.to_dict())
    theirs = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.vocab_size)
    assert (shape.hidden_size, shape.num_layers, shape.num_heads, shape.vocab_size) == theirs
