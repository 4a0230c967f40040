"""Folders as people have them: whole, half, foreign, packed; each answered with a sentence that names the fix."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tiny_kinds import tiny_kind
from support.tiny_models import tiny_model, tiny_tokenizer
from tuning.core.errors import ModelError, SettingsError
from tuning.core.paths import asset_path
from tuning.memory.estimate import estimate
from tuning.memory.usage import usage_of
from tuning.methods import METHODS
from tuning.methods.network import linears, target_pattern
from tuning.models.architectures import KINDS, is_text_model, supports_sdpa, tasks_of
from tuning.models.base_model import BaseModel, resolve_model, split_spec, tuning_of
from tuning.models.families import FAMILIES, family_of
from tuning.models.shapes import shape_from_config
from tuning.plan.plan import plan_for
from tuning.text import TextTokenizer


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        plain = json.loads((folder / "config.json").read_text()) | changes
        members = {key: value for key, value in plain.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(members))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def shards(*present: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").unlink()
        names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        for name in present:
            (folder / names[name]).write_bytes(content)

    return change


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def only_pieces(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"pieces")


def an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def escaping(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (without("config.json"), "no config.json"),
        (an_adapter, "adapter"),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not a JSON object"),
        (config(model_type=None), "no model_type"),
        (config(model_type="townformer"), "not a text model"),
        (config(model_type="townformer", auto_map={"AutoModel": "town.Town"}), "never run"),
        (config(hidden_size=None), "hidden_size"),
        (config(num_local_experts=8), "mixtures of experts"),
        (config(quantization_config={"quant_method": "gptq"}), "gptq"),
        (pickled, "save_pretrained"),
        (cut_off, "cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"version https://git-lfs"), "not a safetensors"),
        (shards("a"), "00002-of-00002"),
        (escaping, "names no files"),
        (without("tokenizer.json"), "no tokenizer"),
        (only_pieces, "tokenizer.model"),
        (lambda folder: shutil.rmtree(folder), "no folder"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(folder: Path, change: Callable[[Path], None], word: str) -> None:
    change(folder)
    with pytest.raises(ModelError, match=word) as refusal:
        resolve_model(str(folder))
    assert [problem.field for problem in refusal.value.problems] == ["model"]
    assert len(str(refusal.value)) < 600


def test_native_models_with_foreign_code_beside_them_are_taken_without_it(folder: Path) -> None:
    config(auto_map={"AutoModelForCausalLM": "modeling_town.Town"})(folder)
    (folder / "modeling_town.py").write_text("raise SystemExit('foreign code was run')")
    assert resolve_model(str(folder)).tasks == ("causal_lm", "sequence_classification")


def test_shards_are_read_by_their_index(folder: Path) -> None:
    shards("a", "b")(folder)
    model = resolve_model(f"path:{folder}")
    assert (
        model.missing is None and model.weight_bytes == 2 * (folder / "model-00001-of-00002.safetensors").stat().st_size
    )


def test_a_config_alone_is_enough_to_estimate_but_not_to_train(whole: Path, tmp_path: Path) -> None:
    shutil.copyfile(whole / "config.json", tmp_path / "config.json")
    plan = plan_for({"model": str(tmp_path), "data": {"max_seq_length": 48}})
    assert plan.value("widest_length") == 48
    alone = estimate(usage_of(plan))
    assert alone.total_parameters > alone.trainable_parameters > 0
    with pytest.raises(ModelError, match="copy the weights"):
        plan.model.check_complete()
    assert BaseModel.from_dict(json.loads(json.dumps(plan.model.to_dict()))) == plan.model


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("tiny-town", ("bundled", "tiny-town")),
        ("bundled:tiny-town", ("bundled", "tiny-town")),
        ("./a", ("path", "./a")),
        ("~/a", ("path", "~/a")),
        ("path:a", ("path", "a")),
        ("/a/b", ("path", "/a/b")),
        ("org/name", ("hub", "org/name")),
        ("hub:gpt2", ("hub", "gpt2")),
        ("gpt2", ("hub", "gpt2")),
        ("run:r0001", ("run", "r0001")),
    ],
)
def test_what_is_typed_says_where_it_is(spec: str, kind: tuple[str, str]) -> None:
    assert split_spec(spec) == kind


@pytest.mark.parametrize("spec", ["", "a/b/c", "org/../name", "hub:../x", "org--x", "a b", "-x", "org/name?x=1"])
def test_what_is_no_model_is_refused_in_words(spec: str) -> None:
    with pytest.raises(ModelError, match="is no model"):
        resolve_model(spec)


@pytest.mark.parametrize(
    ("name", "template", "kind"),
    [
        ("Llama-3.2-1B-Instruct", True, "chat"),
        ("gemma-2b-it", True, "chat"),
        ("Qwen3-0.6B-Base", True, "base"),
        ("Qwen3-0.6B", True, "unclear"),
        ("gpt2", False, "base"),
        ("Italian-chat", False, "base"),
    ],
)
def test_chat_models_and_base_models_are_distinguished(name: str, template: bool, kind: str) -> None:
    assert tuning_of(name, template)[0] == kind


def test_notes_say_what_a_tokenizer_lacks(folder: Path) -> None:
    tiny_tokenizer(folder, pad=False, chat=True)
    model = resolve_model(str(folder))
    assert model.chat_template and any("padding" in note for note in model.notes)


def test_the_asset_of_kinds_says_what_the_installed_transformers_has_code_for() -> None:
    maker = Path(__file__).resolve().parents[2] / "assets" / "make" / "model_kinds.py"
    assert json.loads(asset_path(KINDS).read_text(encoding="utf-8")) == runpy.run_path(str(maker))["model_kinds"]()


def test_a_kind_can_be_trained_for_what_its_record_and_transformers_both_have() -> None:
    from transformers.models.auto import modeling_auto

    for kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        assert is_text_model(kind)
        assert ("causal_lm" in tasks_of(kind)) is family_of(kind).writes
    for kind in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        assert is_text_model(kind)
        assert ("sequence_classification" in tasks_of(kind)) is family_of(kind).classifies
    assert tasks_of("townformer") == () and not is_text_model("townformer")


SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "n_inner": 48,
    "pad_token_id": 0,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 3,
    "n_heads": 4,
}


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.exact])
def test_each_kind_is_counted_as_transformers_builds_it_and_its_layers_are_found(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    default = AutoConfig.for_model(kind)
    sizes = {name: size for name, size in SIZES.items() if hasattr(default, name)}
    config = type(default)(**sizes)
    shape = shape_from_config(config.to_dict())
    makers = [AutoModelForSequenceClassification] if shape.encoder else [AutoModelForCausalLM]
    if not shape.encoder and "sequence_classification" in tasks_of(kind):
        makers.append(AutoModelForSequenceClassification)
    pattern = target_pattern(shape, linears(shape))
    for maker in makers:
        with torch.device("meta"):
            model = maker.from_config(config)
        classes = shape.body_parameters + shape.classifier_parameters(2)
        expected = shape.parameters if maker is AutoModelForCausalLM else classes
        assert sum(weight.numel() for weight in model.parameters()) == expected
        modules = [module for name, module in model.named_modules() if re.fullmatch(pattern, name)]
        assert len(modules) == shape.num_layers * len(shape.linears)
        assert all(module.weight.ndim == 2 for module in modules)


def test_sdpa_is_offered_where_transformers_has_it() -> None:
    import transformers
    from transformers.models.auto import modeling_auto

    kinds = ["llama", "gemma2", "gpt2", "bert", "modernbert", "deberta-v2", "mpnet", "opt", "bloom", "falcon"]
    for kind in [*kinds, "openai-gpt"]:
        both = {
            **modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
            **modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        }
        assert supports_sdpa(kind) is getattr(transformers, both[kind])._supports_sdpa, kind


def test_an_attention_that_a_kind_lacks_is_refused_at_its_field(tmp_path: Path) -> None:
    settings = {"model": str(tiny_model("gemma2", tmp_path / "gemma2")), "data": {"max_seq_length": 32}}
    with pytest.raises(SettingsError, match="gemma2 has no sdpa") as refused:
        plan_for(settings)
    assert [problem.field for problem in refused.value.problems] == ["attention"]
    plan_for(settings | {"attention": "eager"})


def test_methods_that_look_for_layers_by_name_are_refused_where_names_are_not_known(folder: Path) -> None:
    tiny_kind("biogpt").save_pretrained(folder)
    data = {"source": "people-questions", "max_seq_length": 32}
    for method in [method for method in METHODS if method.needs_known_layers]:
        settings = {"model": str(folder), "data": data, "method": {"name": method.name}}
        with pytest.raises(SettingsError) as refused:
            plan_for(settings)
        assert [problem.field for problem in refused.value.problems] == ["method.name"]
        assert "full" in str(refused.value)


def test_more_layers_than_can_be_built_are_refused_at_once(folder: Path) -> None:
    config(num_hidden_layers=10**9)(folder)
    with pytest.raises(ModelError, match="1,000,000,000 layers, and the most that are read here are 2,000"):
        plan_for({"model": str(folder)})


def test_a_token_that_only_tokenizer_config_names_has_no_embedding_and_is_refused(folder: Path) -> None:
    tiny_tokenizer(folder)
    plain = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(plain | {"eos_token": "<nowhere>"}), "utf-8")
    size = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    assert TextTokenizer(folder).eos_id == size, "transformers gives it the next free id"
    with pytest.raises(SettingsError, match=f"the rows have token {size}, and the model has embeddings for {size}\\. "):
        plan_for({"model": str(folder), "data": {"source": "people-questions", "max_seq_length": 32}})
