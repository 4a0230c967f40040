"""The model card of a run: what came out, from what, how, and how good, as Markdown that hubs understand.

Comes in: the plan, the evaluations, the versions of the libraries.  Goes out: one text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tuning.methods import method_named
from tuning.plan import Plan

_MOST_LINES = 12
"""Evaluations in the table; of more, evenly spread ones are shown."""


def model_card(plan: Plan, evals: Sequence[Mapping[str, Any]], end: Mapping[str, Any], versions: str) -> str:
    """The README.md of an artifact. `evals` are the run's eval events' keys, `end` has state, step, seconds."""
    settings, method = plan.settings, method_named(plan.settings.method.name)
    numbers = {
        "method": f"{method.title} ({method.summary(settings.method)}): {plan.value('trainable_parameters'):,} of"
        f" {plan.value('total_parameters'):,} parameters trained",
        "data": f"{plan.data.title}: {plan.data.train_rows:,} rows to train on, {plan.data.eval_rows:,} to evaluate;"
        f" fingerprint `{plan.data.fingerprint}`",
        "effective batch": plan.derived["effective_batch"].origin,
        "optimizer": f"{settings.optimizer.name}, learning rate {plan.value('learning_rate'):g},"
        f" {settings.schedule.name} schedule",
        "length": f"{end['step']:,} of {plan.value('total_steps'):,.0f} updates in {end['seconds'] or 0:.0f} s"
        f" ({end['state']})",
        "seed": settings.seed,
        "made with": versions,
    }
    about = "\n".join(f"| {name} | {value} |" for name, value in numbers.items())
    plain = json.dumps(settings.to_dict(), indent=1, ensure_ascii=False)
    return (
        f"{_front(plan)}\n# {plan.model.title}, fine-tuned on {plan.data.title}\n\n"
        f"Base model: `{_base_name(plan)}`. Made with Tuning Fork; nobody has checked what it is good for.\n\n"
        f"| | |\n|---|---|\n{about}\n\n## Evaluation\n\n{_evaluations(evals)}\n"
        f"## How to load it\n\n```python\n{_loading(plan, method.artifact)}\n```\n\n"
        f"## All settings\n\n`python -m tuning run settings.json` with this file trains it again.\n\n"
        f"```json\n{plain}\n```\n"
    )


def library_versions() -> str:
    """What a result is made with, such as `torch 2.13.0, transformers 5.23.0`."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))


def _base_name(plan: Plan) -> str:
    name = plan.settings.model
    return f"{name} (revision {plan.model.revision})" if plan.model.revision else name


def _front(plan: Plan) -> str:
    classes = plan.settings.task == "sequence_classification"
    lines = ["---"]
    if plan.model.source == "hub":  # the field means a hub id; a name of this machine would mislead
        lines.append(f"base_model: {plan.model.title}")
    adapter = method_named(plan.settings.method.name).artifact == "adapter"
    lines += [
        f"library_name: {'peft' if adapter else 'transformers'}",
        f"pipeline_tag: {'text-classification' if classes else 'text-generation'}",
        "tags:",
        "- tuning-fork",
        "---",
    ]
    return "\n".join(lines) + "\n"


def _evaluations(evals: Sequence[Mapping[str, Any]]) -> str:
    if not evals:
        return "There were no evaluation rows.\n"
    names = list(dict.fromkeys(name for one in evals for name in one["metrics"]))
    stride = max(1, -(-len(evals) // _MOST_LINES))
    shown = list(evals[::stride]) + ([evals[-1]] if (len(evals) - 1) % stride else [])
    lines = [f"| step | eval loss | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for one in shown:
        values = [one["loss"], *(one["metrics"].get(name) for name in names)]
        lines.append(f"| {one['step']} | " + " | ".join("–" if v is None else f"{v:.4g}" for v in values) + " |")
    return "\n".join(lines) + "\n"


def _loading(plan: Plan, artifact: str) -> str:
    kind = "SequenceClassification" if plan.settings.task == "sequence_classification" else "CausalLM"
    if artifact == "model":
        return (
            f"from transformers import AutoModelFor{kind}, AutoTokenizer\n"
            f'model = AutoModelFor{kind}.from_pretrained("model")\ntokenizer = AutoTokenizer.from_pretrained("model")'
        )
    labels = f", num_labels={plan.labels}" if plan.labels else ""
    return (
        f"from peft import PeftModel\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n"
        f'base = AutoModelFor{kind}.from_pretrained("{plan.settings.model}"{labels})\n'
        'model = PeftModel.from_pretrained(base, "adapter")\ntokenizer = AutoTokenizer.from_pretrained("adapter")'
    )
