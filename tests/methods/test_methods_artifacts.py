"""What each method leaves loads again in a fresh process, to identical logits; merged within its tolerance.

One run a method, one fresh process for all: importing the libraries is what takes long.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.method_matrix import BERT, CLASSES, TIED, MatrixJobs, Row
from support.tiny_jobs import run
from tuning.methods import METHODS, method_named
from tuning.models.shapes import shape_from_config

torch = pytest.importorskip("torch")

LOADER = """
import importlib.util, json, pathlib, sys, torch, transformers
found = {}
for place, base, classes in json.load(sys.stdin):
    folder = pathlib.Path(place)
    auto = transformers.AutoModelForSequenceClassification if classes else transformers.AutoModelForCausalLM
    torch.manual_seed(99)
    if (folder / "load.py").is_file():
        spec = importlib.util.spec_from_file_location("load", folder / "load.py")
        load = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(load)
        model = load.load(base)
    elif (folder / "adapter_config.json").is_file():
        import peft
        more = {"num_labels": 2} if classes else {}
        if (folder / "quantization.json").is_file():
            way = json.loads((folder / "quantization.json").read_text())
            more["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type=way["quant_type"],
                bnb_4bit_use_double_quant=way["double_quant"], bnb_4bit_compute_dtype=torch.float32,
                llm_int8_skip_modules=["lm_head", "score", "classifier", "pooler"])
        model = auto.from_pretrained(base, **more)
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        model = peft.PeftModel.from_pretrained(model, place)
    else:
        model = auto.from_pretrained(place)
    with torch.no_grad():
        found[place] = model.eval()(input_ids=torch.tensor([[1, 5, 9, 7, 6]])).logits.tolist()
json.dump(found, sys.stdout)
"""
ROWS = [
    Row(method={"name": "full"}, task=CLASSES),
    Row(method={"name": "partial", "head": True}, model=TIED),
    Row(method={"name": "feature_extraction", "random_body": True}, model=TIED),
    Row(method={"name": "feature_extraction", "head": "kan"}, task=CLASSES),
    Row(method={"name": "feature_extraction", "head": "mlp"}, task=CLASSES, model=BERT),
    Row(method={"name": "lora", "r": 4, "dora": True}),
    Row(method={"name": "lora", "r": 4}, task=CLASSES, model=BERT),
    Row(method={"name": "lora", "r": 4, "init": "pissa"}, tolerance=1e-4),
    Row(method={"name": "lora", "r": 4, "init": "olora", "rslora": True}, tolerance=1e-4),
    Row(method={"name": "qlora", "r": 4}),
    Row(method={"name": "galore", "rank": 4}),
    Row(method={"name": "adapter"}),
    Row(method={"name": "adapter"}, task=CLASSES, model=BERT),
    Row(method={"name": "ia3"}),
    Row(method={"name": "prompt_tuning"}),
    Row(method={"name": "prefix_tuning"}),
    Row(method={"name": "p_tuning"}),
]
"""`tolerance`: 0 but for starts that are converted to a plain LoRA, which sums the same products in another order."""
NEVER_MERGED = {"adapter", "prompt_tuning", "prefix_tuning", "p_tuning"}
IDS = torch.tensor([[1, 5, 9, 7, 6]])


def test_every_trained_method_leaves_something() -> None:
    assert {row.method["name"] for row in ROWS} == {method.name for method in METHODS if method.updates}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Per row: the folder it left, its base, the logits it had before saving."""
    from tuning.training import session

    world = MatrixJobs(tmp_path_factory.mktemp("artifacts"))
    found, kept = [], {}
    real = session.save_artifact

    def keep(model, *rest):
        with torch.no_grad():
            was = model.training
            kept["logits"] = model.eval()(input_ids=IDS).logits[:, -5:].clone()
            model.train(was)
        kept["model"] = model
        return real(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "save_artifact", keep)
        for row in ROWS:
            job = world.of(row, max_steps=8, eval={"every": None}, data={"eval_fraction": 0.0})
            state, events = run(job)
            assert state == "finished", events[-1].data
            place = Path(job.folder) / method_named(row.method["name"]).artifact
            found.append((row, place, world.models[row.model], kept["logits"], kept["model"]))
    return found


def test_it_loads_in_a_fresh_process_to_identical_logits(left) -> None:
    asked = json.dumps([(str(place), str(base), row.task == CLASSES) for row, place, base, _, _ in left])
    done = subprocess.run([sys.executable, "-c", LOADER], input=asked, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for row, place, _, logits, _ in left:
        theirs = torch.tensor(found[str(place)])
        gap = (
            float((theirs[:, -5:] - logits).abs().max()) if logits.dim() == 3 else float((theirs - logits).abs().max())
        )
        assert gap <= (row.tolerance if "init" in row.method else 0.0), (row.id, gap)


def test_the_methods_own_way_of_loading_gives_the_same(left) -> None:
    """What answers questions after a run."""
    from tuning.training.build import load_base

    for row, place, base, logits, _ in left:
        labels = ["no", "yes"] if row.task == CLASSES else None
        plain = load_base(str(base), class_names=labels, attention="sdpa", dtype=torch.float32, pad_id=0)
        model = method_named(row.method["name"]).load(plain, place).eval()
        with torch.no_grad():
            ours = model(input_ids=IDS).logits
        ours = ours[:, -5:] if ours.dim() == 3 else ours
        assert float((ours - logits).abs().max()) <= (row.tolerance if "init" in row.method else 0.0), row.id
        method, before = method_named(row.method["name"]), shape_from_config(plain.config.to_dict())
        wanted = method.merged_shape(before, method.settings(**row.method), 2 if labels else 0)
        merged = method.merge(model)
        assert (merged is None) == (wanted is None), row.id
        if merged is not None:
            assert shape_from_config(merged.config.to_dict()) == wanted, row.id
        assert (merged is None) == (row.method["name"] in NEVER_MERGED or row.method.get("head") in ("kan", "mlp")), (
            row.id
        )


def test_merged_it_is_a_plain_model_within_the_tolerance(left) -> None:
    import peft
    from transformers import PreTrainedModel

    for row, _, _, logits, model in left:
        method = method_named(row.method["name"])
        merged = method.merge(model)
        if merged is None:
            assert method.artifact == "adapter"
            continue
        assert isinstance(merged, PreTrainedModel) and not isinstance(merged, peft.PeftModel)
        with torch.no_grad():
            ours = merged.eval()(input_ids=IDS).logits
        ours = ours[:, -5:] if ours.dim() == 3 else ours
        assert float((ours - logits).abs().max()) <= method.merge_tolerance, row.id
