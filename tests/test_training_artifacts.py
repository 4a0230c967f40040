"""What comes out of a run is what plain `transformers` and `peft` load, in a fresh process, to identical logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training_world import World, run

torch = pytest.importorskip("torch")

LOADER = """
import json, sys, torch, transformers
base, artifact, task, out = sys.argv[1:]
kind = transformers.AutoModelForCausalLM if task == "causal_lm" else transformers.AutoModelForSequenceClassification
if artifact.endswith("adapter"):
    import peft
    extra = {} if task == "causal_lm" else {"num_labels": 2}
    torch.manual_seed(99)
    model = peft.PeftModel.from_pretrained(kind.from_pretrained(base, **extra), artifact)
else:
    model = kind.from_pretrained(artifact)
tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
ids = tokenizer("the red dog likes", add_special_tokens=False, return_tensors="pt").input_ids
with torch.no_grad():
    logits = model.eval()(input_ids=ids).logits
json.dump({"ids": ids.tolist(), "logits": logits.tolist()}, open(out, "w"))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("task", ["causal_lm", "sequence_classification"])
@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora", "r": 4}], ids=["full", "lora"])
def test_artifact_reloads_to_identical_logits(world, tmp_path, monkeypatch, task, method):
    from tuning.training import session

    kept = {}
    real = session.save_artifact

    def keep(model, *rest):
        kept["model"] = model
        return real(model, *rest)

    monkeypatch.setattr(session, "save_artifact", keep)
    job = world.job(task=task, method=method, max_steps=10, eval={"every": None}, data={"eval_fraction": 0.0},
                    optimizer={"learning_rate": 0.02})  # fmt: skip
    assert run(job)[0] == "finished"
    artifact = Path(job.folder) / ("adapter" if method["name"] == "lora" else "model")
    out = tmp_path / "logits.json"
    command = [sys.executable, "-c", LOADER, str(world.model), str(artifact), task, str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    found = json.loads(out.read_text(encoding="utf-8"))
    model = kept["model"].eval()
    with torch.no_grad():
        ours = model(input_ids=torch.tensor(found["ids"])).logits
    theirs = torch.tensor(found["logits"])
    assert torch.equal(ours, theirs), float((ours - theirs).abs().max())
    if task == "causal_lm":
        from transformers import AutoModelForCausalLM

        with torch.no_grad():
            base = AutoModelForCausalLM.from_pretrained(world.model)(input_ids=torch.tensor(found["ids"])).logits
        assert float((base - theirs).abs().max()) > 0.1, "the training moved the model"
    else:
        assert json.loads((artifact / "labels.json").read_text(encoding="utf-8")) == ["no", "yes"]


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora", "r": 4}], ids=["full", "lora"])
def test_answers_of_base_and_trained_stand_side_by_side(world, method):
    from tuning.training.generate import answers

    job = world.job(method=method, max_steps=60, optimizer={"learning_rate": 0.03})
    run(job)
    state = torch.random.get_rng_state()

    def ask(temperature, seed):
        return answers(job.folder, str(world.model), method["name"], ["the red dog :", "cat :"], 6, temperature, seed)

    said = ask(0.0, 0)
    assert len(said["base"]) == len(said["trained"]) == 2 and said["base"] != said["trained"]
    assert ask(0.0, 5) == said, "greedy does not depend on the seed"
    assert ask(1.0, 1) == ask(1.0, 1) != ask(1.0, 2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_greedy_answer_is_that_of_the_library(world):
    from transformers import AutoModelForCausalLM

    from tuning.text import TextTokenizer
    from tuning.training.generate import answer_all

    model = AutoModelForCausalLM.from_pretrained(world.model).eval()
    tokenizer = TextTokenizer(world.model)
    ids = torch.tensor([[1, *tokenizer.encode("the red dog :")]])
    theirs = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    assert answer_all(model, tokenizer, ["the red dog :"], 12, 0.0, 0) == [tokenizer.decode(theirs)]


def test_answers_of_a_classifier_name_the_class(world):
    from tuning.training.generate import answers

    job = world.job(task="sequence_classification", max_steps=5)
    run(job)
    said = answers(job.folder, str(world.model), "full", ["the red dog"], 4, 0.0, 0)
    assert said["trained"][0].split()[0] in ("yes", "no") and said["trained"][0].endswith("%)")


def test_asking_a_run_that_saved_nothing_is_refused(world, tmp_path):
    from tuning.errors import RunError
    from tuning.training.generate import answers

    with pytest.raises(RunError, match="saved nothing"):
        answers(tmp_path, str(world.model), "full", ["a"], 4, 0.0, 0)
