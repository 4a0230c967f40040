"""What comes out of a run is what plain `transformers` and `peft` load, in a fresh process, to identical logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_jobs import TinyJobs, run

torch = pytest.importorskip("torch")

LOADER = """
import json, sys, torch, transformers
base, out, *artifacts = sys.argv[1:]
found = {}
for artifact in artifacts:
    classes = "sequence_classification" in artifact
    kind = transformers.AutoModelForSequenceClassification if classes else transformers.AutoModelForCausalLM
    if artifact.endswith("adapter"):
        import peft
        torch.manual_seed(99)
        model = peft.PeftModel.from_pretrained(kind.from_pretrained(base, **({"num_labels": 2} if classes else {})), artifact)
    else:
        model = kind.from_pretrained(artifact)
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    ids = tokenizer("the red dog likes", add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        found[artifact] = {"ids": ids.tolist(), "logits": model.eval()(input_ids=ids).logits.tolist()}
json.dump(found, open(out, "w"))
"""  # noqa: E501
TASKS = ("causal_lm", "sequence_classification")
METHODS = ({"name": "full"}, {"name": "lora", "r": 4})


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


def test_artifacts_reload_in_a_fresh_process_to_identical_logits(jobs, tmp_path, monkeypatch):
    """All four in one process: importing the libraries is what takes long."""
    from tuning.training import session

    trained, last = {}, {}
    real = session.save_artifact

    def keep(model, *rest):
        last["model"] = model
        return real(model, *rest)

    monkeypatch.setattr(session, "save_artifact", keep)
    for task in TASKS:
        for method in METHODS:
            folder = tmp_path / f"{task}-{method['name']}"
            job = jobs.job(
                folder,
                task=task,
                method=method,
                max_steps=10,
                data={"eval_fraction": 0.0},
                optimizer={"learning_rate": 0.02},
            )
            assert run(job)[0] == "finished"
            artifact = folder / ("adapter" if method["name"] == "lora" else "model")
            trained[str(artifact)] = last["model"].eval()
    out = tmp_path / "logits.json"
    command = [sys.executable, "-c", LOADER, str(jobs.model), str(out), *trained]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(out.read_text(encoding="utf-8"))
    base = base_logits(jobs, loaded[str(tmp_path / "causal_lm-full" / "model")]["ids"])
    for artifact, model in trained.items():
        with torch.no_grad():
            ours = model(input_ids=torch.tensor(loaded[artifact]["ids"])).logits
        theirs = torch.tensor(loaded[artifact]["logits"])
        assert torch.equal(ours, theirs), (artifact, float((ours - theirs).abs().max()))
        if "causal_lm" in artifact:
            assert float((base - theirs).abs().max()) > 0.1, "the training moved the model"
        else:
            assert json.loads((Path(artifact) / "labels.json").read_text(encoding="utf-8")) == ["no", "yes"]


def base_logits(jobs, ids):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(jobs.model)(input_ids=torch.tensor(ids)).logits


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora", "r": 4}], ids=["full", "lora"])
def test_answers_of_base_and_trained_stand_side_by_side(jobs, method):
    from tuning.text.question import Question
    from tuning.training.compare import BaseAndTuned

    job = jobs.job(method=method, max_steps=60, optimizer={"learning_rate": 0.03})
    run(job)
    models = BaseAndTuned(job.folder, str(jobs.model), job.plan.settings)
    state = torch.random.get_rng_state()

    def ask(temperature, seed):
        return models.ask(Question(["the red dog :", "cat :"], 6, temperature, seed))

    answers = ask(0.0, 0)
    assert len(answers["base"]) == len(answers["trained"]) == 2 and answers["base"] != answers["trained"]
    assert ask(0.0, 5) == answers, "greedy does not depend on the seed"
    assert ask(1.0, 1) == ask(1.0, 1) != ask(1.0, 2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_greedy_answer_is_that_of_the_library(jobs):
    from transformers import AutoModelForCausalLM

    from tuning.text import TextTokenizer
    from tuning.text.question import Question
    from tuning.training.generate import TextGenerator

    model = AutoModelForCausalLM.from_pretrained(jobs.model).eval()
    tokenizer = TextTokenizer(jobs.model)
    ids = torch.tensor([tokenizer.encode("the red dog :")])
    theirs = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    speaker, pieces = TextGenerator(model, tokenizer), []
    question = Question(["the red dog :", "cat :"], 12)
    answers = speaker.answers(question, lambda index, text: pieces.append((index, text)))
    assert answers[0] == tokenizer.decode(theirs)
    assert ["".join(text for index, text in pieces if index == i) for i in (0, 1)] == answers
    rows = [tokenizer.encode(prompt) for prompt in question.prompts]
    assert speaker.continuations(rows, 12) == answers, "a batch, padded on the left, says the same"


def test_answers_of_a_classifier_name_the_class(jobs):
    from tuning.text.question import Question
    from tuning.training.compare import BaseAndTuned

    job = jobs.job(task="sequence_classification", max_steps=5)
    run(job)
    answers = BaseAndTuned(job.folder, str(jobs.model), job.plan.settings).ask(Question(["the red dog"]))
    assert sum(answers["chances"][0].values()) == pytest.approx(1.0) and set(answers["chances"][0]) == {"yes", "no"}
    assert answers["trained"][0].split()[0] in ("yes", "no") and answers["trained"][0].endswith("%)")


def test_asking_a_run_that_saved_nothing_is_refused(jobs, tmp_path):
    from tuning.core.errors import RunError
    from tuning.training.compare import BaseAndTuned

    with pytest.raises(RunError, match="saved nothing"):
        BaseAndTuned(tmp_path, str(jobs.model), jobs.job().plan.settings)
