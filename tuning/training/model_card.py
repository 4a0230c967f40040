"""The model card of a run: what was trained, from what, how, and how good it is, as Markdown that hubs understand.

It names no path of the machine it was written on: a card travels with the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuning.core.errors import counted
from tuning.data.locate import split_source
from tuning.methods import method_named
from tuning.models.base_model import BaseModel
from tuning.plan.plan import Plan
from tuning.training.checkpoint_files import RecoverySource, recovery_words

_MOST_LINES = 12
"""How many evaluations the table has at most; of more, evenly spread ones are shown."""


def model_card(
    plan: Plan,
    evals: Sequence[Mapping[str, Any]],
    end: Mapping[str, Any],
    versions: str,
    *,
    merged: bool = False,
    source: RecoverySource | None = None,
) -> str:
    """The README.md of an artifact, or where `merged` is True of the merged model.

    `evals` are the data of the run's eval events; `end` has state, step and seconds. `source` says which weights these
    are where they were recovered after the run was cut off.
    """
    settings, method = plan.settings, method_named(plan.settings.method.name)
    folder = "merged" if merged else method.artifact
    numbers = {
        "method": f"{method.title} ({method.summary(settings.method)}): {plan.value('trainable_parameters'):,} of"
        f" {plan.value('total_parameters'):,} parameters trained",
        "data": f"{plan.data.title}: {counted(plan.data.train_rows, 'row')} to train on,"
        f" {plan.data.eval_rows:,} to evaluate;"
        f" fingerprint `{plan.data.fingerprint}`",
        "effective batch": plan.derived["effective_batch"].origin,
        "optimizer": f"{settings.optimizer.name}, learning rate {plan.value('learning_rate'):g},"
        f" {settings.schedule.name} schedule",
        "length": f"{end['step']:,} of {counted(plan.value('total_steps'), 'update')} in {end['seconds'] or 0:.0f} s"
        f" ({end['state']})",
        "seed": settings.seed,
        "made with": versions,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in numbers.items())
    plain = json.dumps(_portable(plan), indent=1, ensure_ascii=False)
    title = f"{plan.model.title}, fine-tuned on {plan.data.title}".replace("the ", "The ", plan.model.source == "run")
    return (
        f"{_front_matter(plan, folder)}\n# {title}\n\n"
        f"Base model: {base_words(plan.model)}. Made with Tuning Fork; nobody has checked what it is good for.\n\n"
        f"| | |\n|---|---|\n{table}\n\n{_recovered(source, end)}{_notices(plan)}"
        f"## Evaluation\n\n{_evaluations(evals)}\n"
        f"## How to load it\n\nIn the folder that holds `{folder}/`:\n\n```python\n{_loading(plan, folder)}\n```\n\n"
        f"## All settings\n\n`python -m tuning run settings.json` with this file trains it again. A path is written as"
        f" `./` and its last part.\n\n```json\n{plain}\n```\n"
    )


def library_versions() -> str:
    """The versions of libraries, such as `torch 2.13.0, transformers 5.23.0`."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))


def base_words(model: BaseModel) -> str:
    """Which model a run started from, and that model from which, in words that are true on any machine."""
    if model.source == "hub":
        return f"`{_hub_id(model)}` of the hub" + (f", revision `{model.revision}`" if model.revision else "")
    if model.source == "bundled":
        return f"`{model.title}`, which comes with Tuning Fork"
    if model.source != "run" or model.parent is None:
        return f"`{model.title}`, a folder on the machine that trained this"
    how = "whose adapter was trained on; it belongs to" if model.adapter else "which was trained from"
    return f"{model.title} (`{model.spec}`), {how} {base_words(model.parent)}"


def _hub_id(model: BaseModel) -> str:
    return model.spec.removeprefix("hub:")


def _base_of_adapter(model: BaseModel) -> BaseModel:
    """The base model that an adapter belongs to; of an adapter that was trained further, that of the first run."""
    while model.adapter is not None and model.parent is not None:
        model = model.parent
    return model


def _root(model: BaseModel) -> BaseModel:
    return model if model.parent is None else _root(model.parent)


def _front_matter(plan: Plan, folder: str) -> str:
    """The YAML that hubs read. There base_model means a hub id, so it is left out for any other base model."""
    from huggingface_hub import ModelCardData

    classes = plan.settings.task == "sequence_classification"
    base = _base_of_adapter(plan.model) if folder == "adapter" else _root(plan.model)
    kind, source = split_source(plan.settings.data.source)
    data = ModelCardData(
        base_model=_hub_id(base) if base.source == "hub" else None,
        datasets=[source] if kind == "hub" else None,
        library_name="peft" if _is_peft(plan, folder) else "transformers",
        pipeline_tag="text-classification" if classes else "text-generation",
        tags=["tuning-fork"],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _is_peft(plan: Plan, folder: str) -> bool:
    return folder == "adapter" and not method_named(plan.settings.method.name).own_loader


def _portable(plan: Plan) -> dict[str, Any]:
    """The settings without the paths of this machine."""
    plain = plan.settings.to_dict()
    if plan.model.source == "path":
        plain["model"] = f"./{plan.model.title}"
    kind, source = split_source(plain["data"]["source"])
    if kind == "path":
        plain["data"]["source"] = f"./{Path(source).name}"
    return plain


def _recovered(source: RecoverySource | None, end: Mapping[str, Any]) -> str:
    """Of which update the weights are, where that is not plainly the last one."""
    if source is None or (source["kind"] == "checkpoint" and source["step"] == end["step"]):
        return ""
    when = "before a checkpoint" if source["kind"] == "best" else "after it"
    return f"The weights are those of {recovery_words(source)}, because the run was cut off {when}.\n\n"


def _notices(plan: Plan) -> str:
    """The notices that were shown before Start, so that the weights come with them."""
    if not plan.notices:
        return ""
    text = "\n".join(f"- `{notice.field}`: {notice.message}" for notice in plan.notices)
    kind, source = split_source(plan.settings.data.source)
    for path in (plan.model.path, *([source] if kind == "path" else [])):
        text = text.replace(path, f"./{Path(path).name}")
    return f"## What was told before the run\n\n{text}\n\n"


def _evaluations(evals: Sequence[Mapping[str, Any]]) -> str:
    if not evals:
        return "There were no evaluation rows.\n"
    names = list(dict.fromkeys(name for evaluation in evals for name in evaluation["metrics"]))
    stride = max(1, -(-len(evals) // _MOST_LINES))
    shown = list(evals[::stride]) + ([evals[-1]] if (len(evals) - 1) % stride else [])
    lines = [f"| step | eval loss | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for evaluation in shown:
        values = [evaluation["loss"], *(evaluation["metrics"].get(name) for name in names)]
        lines.append(f"| {evaluation['step']} | " + " | ".join("–" if v is None else f"{v:.4g}" for v in values) + " |")
    return "\n".join(lines) + "\n"


def _loading(plan: Plan, folder: str) -> str:
    """A Python program that loads the artifact with plain libraries, in the folder that the card names."""
    classes = plan.settings.task == "sequence_classification"
    kind = f"AutoModelFor{'SequenceClassification' if classes else 'CausalLM'}"
    if folder != "adapter":
        return (
            f"from transformers import {kind}, AutoTokenizer\n\n"
            f'model = {kind}.from_pretrained("{folder}")\ntokenizer = AutoTokenizer.from_pretrained("{folder}")'
        )
    method, base = method_named(plan.settings.method.name), _base_line(_base_of_adapter(plan.model))
    if method.own_loader:
        return (
            "import sys\n\nfrom transformers import AutoTokenizer\n\n"
            f'sys.path.insert(0, "adapter")\nimport load\n\n{base}\n'
            "model = load.load(BASE)\ntokenizer = AutoTokenizer.from_pretrained(BASE)"
        )
    code = method.loading_code(plan.settings.method, plan.device.kind)
    names = 'names = json.load(open("adapter/labels.json", encoding="utf-8"))\n' if classes else ""
    labels = ", num_labels=len(names), id2label=dict(enumerate(names))" if classes else ""
    imports = ("import json\n\n" if classes else "") + "from peft import PeftModel\n"
    words = ", ".join((kind, "AutoTokenizer", *code.imports))
    return (
        f"{imports}from transformers import {words}\n\n{base}\n{names}{code.before}"
        f'base = {kind}.from_pretrained(BASE, dtype="float32"{labels}{code.arguments})\n{code.after}'
        'model = PeftModel.from_pretrained(base, "adapter").eval()\ntokenizer = AutoTokenizer.from_pretrained(BASE)'
    )


def _base_line(model: BaseModel) -> str:
    """The line of that program which says where the base model is."""
    if model.source == "hub":
        revision = f", revision={json.dumps(model.revision)}" if model.revision else ""
        return (
            f"from huggingface_hub import snapshot_download\n\nBASE = snapshot_download({json.dumps(_hub_id(model))}"
            f"{revision})"
        )
    if model.source == "bundled":
        return (
            "from tuning.models import resolve_model  # the base model comes with Tuning Fork\n\n"
            f"BASE = resolve_model({json.dumps(model.title)}).path"
        )
    name = Path(model.path).name
    if model.source == "run":
        whole = "downloaded" if name == "model" else "downloaded as a merged model"
        return f"BASE = {json.dumps(name)}  # {model.title} ({model.spec}): {whole} and unpacked here"
    return f"BASE = {json.dumps(name)}  # the folder of the base model, put beside adapter/"
