"""What a model writes: the likeliest token each time whatever its folder wishes, within the room that it has; and
whatever loads a base model again does so as the run did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from support.tiers import first_only
from support.tiny_kinds import tiny_kind
from support.tiny_models import labelled_rows, tiny_model, tiny_tokenizer, vocabulary
from tuning.core.errors import SettingsError
from tuning.plan.plan import Plan, plan_for
from tuning.runs.events import Emitter, Event
from tuning.text.question import Question
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

WISHES: dict[str, dict[str, Any]] = {
    "penalty": {"repetition_penalty": 1.8},
    "n-grams": {"no_repeat_ngram_size": 1},
    "beams": {"num_beams": 3},
    "guidance": {"guidance_scale": 1.5},
    "forced end": {"forced_eos_token_id": 2},
    "suppressed": {"suppress_tokens": [7, 8, 9, 10, 11, 12]},
    "least": {"min_new_tokens": 9},
    "drawn": {"do_sample": True, "temperature": 3.0, "top_k": 5},
    "bad words": {"bad_words_ids": [[7], [8], [9]]},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    labelled_rows(folder / "rows.jsonl")
    for family in ("llama", "gpt2", "gemma2"):
        tiny_model(family, folder / family, initializer_range=0.3)
    return folder


def plan(folder: Path, task: str = "causal_lm", **changes: Any) -> Plan:
    columns = {"prompt": "prompt", "completion": "completion"}
    if task == "sequence_classification":
        columns = {"text": "text", "label": "label"}
    rows = next(parent for parent in folder.parents if (parent / "rows.jsonl").is_file()) / "rows.jsonl"
    data = {"source": str(rows), "columns": columns, "max_seq_length": 32}
    plain: dict[str, Any] = {"model": str(folder), "task": task, "data": data, "method": {"name": "full"}}
    plain |= {"max_steps": 2, "micro_batch_size": 4, "gradient_accumulation_steps": 1, "device": "cpu"}
    return plan_for(plain | changes)


def run(planned: Plan, folder: Path) -> list[Event]:
    events: list[Event] = []
    end = run_job(
        Job(run_id="r", attempt=1, plan=planned, folder=str(folder)), Emitter("r", 1, events.append), Commands()
    )
    assert end == "finished", events[-1].data
    return events


def speaker(folder: Path) -> Any:
    from tuning.text import TextTokenizer
    from tuning.training.build import load_base
    from tuning.training.generate import TextGenerator

    model = load_base(str(folder), class_names=None, attention="eager", dtype=torch.float32, pad_id=0).eval()
    return TextGenerator(model, TextTokenizer(folder)), model


def wishing(models: Path, wishes: dict[str, Any]) -> Path:
    folder = models / "wishing"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / "llama", folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wishes))
    return folder


@pytest.mark.parametrize("wishes", WISHES.values(), ids=WISHES.keys())
def test_greedy_is_the_likeliest_token_each_time_whatever_the_folder_wishes(
    models: Path, wishes: dict[str, Any]
) -> None:
    folder = wishing(models, wishes)
    speaks, model = speaker(folder)
    prompt = [1, 7, 9, 12]
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + 8 and ids[-1] != 2:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    from tuning.text import TextTokenizer

    expected = TextTokenizer(folder).decode([token for token in ids[len(prompt) :] if token != 2])
    assert speaks.continuations([prompt], 8) == [expected]
    assert model.generation_config.to_dict() | wishes == model.generation_config.to_dict(), "put back afterwards"


def test_the_ends_that_a_folder_names_end_an_answer(models: Path) -> None:
    from tuning.text import TextTokenizer

    speaks, model = speaker(wishing(models, {}))
    prompt = [1, 7, 9, 12]
    tokens = TextTokenizer(models / "llama").encode(speaks.continuations([prompt], 8)[0])
    ended, _ = speaker(wishing(models, {"eos_token_id": [2, tokens[2]]}))
    first = tokens.index(tokens[2])
    assert TextTokenizer(models / "llama").encode(ended.continuations([prompt], 8)[0]) == tokens[:first]


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning"])
def test_virtual_tokens_take_room_from_what_is_written(models: Path, tmp_path: Path, method: str) -> None:
    """GPT-2 with 64 positions: a prompt that fills them leaves no room for virtual tokens and an answer."""
    from tuning.training.compare import BaseAndTuned

    data = {"source": str(models / "rows.jsonl"), "columns": {"prompt": "prompt", "completion": "completion"}}
    planned = plan(
        models / "gpt2",
        method={"name": method, "virtual_tokens": 16},
        data=data | {"max_seq_length": 48},
        eval={"metrics": ["exact_match"], "max_new_tokens": 32},
        sample={"prompts": ["the red dog " * 30]},
    )
    run(planned, tmp_path)
    compared = BaseAndTuned(tmp_path, planned.model.path, planned.settings)
    answers = compared.ask(Question(["the red dog " * 40, "cat"], 60))
    assert len(answers["trained"]) == len(answers["base"]) == 2


@pytest.mark.parametrize("padding", [0, 3, 5])
@pytest.mark.parametrize("kind", ["roberta", "data2vec-text", "xlm-roberta-xl", "mpnet", "camembert", "ibert"])
def test_the_limit_of_a_row_is_the_last_place_the_model_takes(tmp_path: Path, kind: str, padding: int) -> None:
    """The reference is the model itself: a row of the limit's length passes, one more token does not."""
    folder = tmp_path / kind
    model = tiny_kind(
        kind, "AutoModelForSequenceClassification", num_labels=2, pad_token_id=padding, vocab_size=len(vocabulary())
    )
    model.save_pretrained(folder)
    tiny_tokenizer(folder, frame=True)
    labelled_rows(tmp_path / "rows.jsonl")
    data = {"source": str(tmp_path / "rows.jsonl"), "columns": {"text": "text", "label": "label"}}
    limit = plan(folder, "sequence_classification", attention="eager").model.shape.max_positions
    ids = torch.full((1, limit + 1), 7)
    with torch.no_grad():
        model(input_ids=ids[:, :limit])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids)
    with pytest.raises(SettingsError, match=f"{limit} positions.*come before") as refused:
        plan(folder, "sequence_classification", data=data | {"max_seq_length": limit + 1})
    assert refused.value.problems[0].field == "data.max_seq_length"


# -- padding --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("padding", first_only([0, 1, 5, 9]))
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_classifiers_padding_token_in_config_changes_nothing(
    models: Path, tmp_path: Path, family: str, padding: int
) -> None:
    """8x1, 2x4 and 1x8 give one curve: that of the rows one by one, whatever config.json calls padding."""
    folder = models / "padded"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / family, folder)
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(plain | {"pad_token_id": padding}))
    tiny_tokenizer(folder)  # its own padding token is 0
    curves = []
    for micro, steps in ((8, 1), (2, 4), (1, 8)):
        planned = plan(folder, "sequence_classification", micro_batch_size=micro, gradient_accumulation_steps=steps)
        events = run(planned, tmp_path / str(micro))
        curves.append([event.data["loss"] for event in events if event.kind == "step"])
    usual = plan(models / family, "sequence_classification", micro_batch_size=8, gradient_accumulation_steps=1)
    events = run(usual, tmp_path / "usual")
    curves.append([event.data["loss"] for event in events if event.kind == "step"])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "bloom", "gpt_neox", "ctrl", "openai-gpt", "biogpt", "mpt"])
def test_a_row_that_ends_in_the_padding_token_is_read_to_its_end(kind: str) -> None:
    """The reference is the row alone without a padding token in the config: the library then reads the last state."""
    from tuning.training.batches import collate
    from tuning.training.loss import batch_logits

    model = tiny_kind(kind, "AutoModelForSequenceClassification", num_labels=3, pad_token_id=5)
    rows = [[7, 8, 9, 5], [7, 8, 9, 10, 11, 12], [9, 5]]
    batch = collate([row_of(ids) for ids in rows], pad_id=5, classes=True, packing=False, device=torch.device("cpu"))
    with torch.no_grad():
        together = batch_logits(model, batch, classes=True)
        model.config.pad_token_id = None
        alone = [model(input_ids=torch.tensor([ids])).logits[0] for ids in rows]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4 * float(together.abs().max()))


def row_of(ids: list[int]) -> Any:
    from tuning.text import EncodedRow

    return EncodedRow(ids=ids, trained=[False] * len(ids), label=0, cut=False)


# -- loaded as the run did ------------------------------------------------------------------------------------------
def test_a_model_that_has_eager_attention_alone_is_asked_and_merged(models: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from tuning.training.compare import BaseAndTuned
    from tuning.training.merge import merged_folder

    planned = plan(models / "gemma2", method={"name": "lora", "r": 4}, attention="eager")
    run(planned, tmp_path)
    compared = BaseAndTuned(tmp_path, planned.model.path, planned.settings)
    answers = compared.ask(Question(["the red dog"], 8))
    job = Job(run_id="r", attempt=1, plan=planned, folder=str(tmp_path))
    merged = AutoModelForCausalLM.from_pretrained(merged_folder(job, "a card"), attn_implementation="eager").eval()
    assert merged.config._attn_implementation == "eager" and len(answers["trained"]) == 1
    with pytest.raises(SettingsError, match="eager"):
        plan(models / "gemma2", attention="sdpa")


def test_r_tuning_and_closed_book_answers_load_an_eager_model(models: Path, tmp_path: Path) -> None:
    planned = plan(models / "gemma2", attention="eager", recipe={"name": "r_tuning"}, eval={"max_new_tokens": 4})
    run(planned, tmp_path)


# -- what is saved --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_saved_files_have_one_mode_and_no_path_of_this_machine(models: Path, tmp_path: Path, method: str) -> None:
    from tuning.training.merge import merged_folder

    planned = plan(models / "llama", "sequence_classification", method={"name": method})
    run(planned, tmp_path / "run")
    merged_folder(Job(run_id="r", attempt=1, plan=planned, folder=str(tmp_path / "run")), "a card")
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file() and file.parent.name != "run"]
    assert {file.stat().st_mode & 0o777 for file in files} == {(tmp_path / "run").stat().st_mode & 0o666}
    for file in files:
        if file.name != "README.md":  # the card shows the settings as they were typed
            assert str(models).encode() not in file.read_bytes(), file
    if method != "full":
        plain = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
        assert plain["base_model_name_or_path"] == "llama"


@pytest.mark.parametrize("init", ["default", "gaussian", "pissa"])
def test_lora_on_transposed_layers_starts_as_the_base_and_saves_what_was_shown(
    models: Path, tmp_path: Path, init: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tuning.methods import method_named
    from tuning.training.build import base_of

    planned = plan(models / "gpt2", method={"name": "lora", "r": 4, "init": init})
    lora, ids = method_named("lora"), torch.arange(4, 24)[None]
    with torch.random.fork_rng(), torch.no_grad():
        base: Any = AutoModelForCausalLM.from_pretrained(models / "gpt2").eval()
        model: Any = lora.apply(
            base_of(planned.settings, planned.model.path, None, 0), planned.settings.method, "causal_lm"
        ).eval()
        assert torch.allclose(model(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-4)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.02)
        shown = model(input_ids=ids).logits
        lora.save(model, tmp_path)
        loaded = PeftModel.from_pretrained(base, tmp_path).eval()
        assert torch.allclose(loaded(input_ids=ids).logits, shown, atol=1e-4)


def test_olora_on_transposed_layers_is_refused(models: Path) -> None:
    with pytest.raises(SettingsError, match="other way") as refused:
        plan(models / "gpt2", method={"name": "lora", "r": 4, "init": "olora"})
    assert refused.value.problems[0].field == "method.init"
