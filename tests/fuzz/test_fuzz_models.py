"""Tiny model folders of many kinds, unharmed and mutated, through plan, estimate and run: nothing unhandled or silent.

What stands beside is plain `transformers`: where it reports tensors that are missing or do not fit, a run is refused;
where a run starts, its first evaluation is the loss that the plain library computes.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from model_folders import CHANGES, ENCODERS, KINDS, made

from support.tiny_jobs import run  # noqa: E402
from support.tiny_models import labelled_rows  # noqa: E402
from tuning.core.errors import TuningError
from tuning.data import encode_pairs, open_data
from tuning.memory.estimate import estimate
from tuning.memory.usage import usage_of
from tuning.models.architectures import supports_sdpa
from tuning.plan.plan import plan_for
from tuning.text import TextTokenizer
from tuning.training.job import Job


@pytest.mark.parametrize("kind", KINDS)
def test_model_folders_are_trained_as_they_are_or_refused_in_words(
    kind: str, tmp_path: Path, fuzz: int, fuzz_seed: int
) -> None:
    base = made(kind, tmp_path / "base")
    if base is None:
        pytest.skip(f"these sizes make no {kind}")
    rows = labelled_rows(tmp_path / "rows.jsonl", count=16)
    draw, wrong, outcomes = random.Random(f"{kind} {fuzz_seed}"), list[str](), dict[str, int]()
    changes = [None, *CHANGES, *(draw.choice(CHANGES) for _ in range(fuzz))][: max(8, fuzz)]
    for i, change in enumerate(changes):
        folder = tmp_path / f"model{i}"
        shutil.copytree(base, folder)
        what = "unharmed"
        try:
            what = change(folder, draw) if change else what
        except Exception:  # this kind has nothing of that sort to change
            continue
        task = "sequence_classification" if kind in ENCODERS or draw.random() < 0.25 else "causal_lm"
        try:
            outcome, faults = went(kind, folder, rows, task, tmp_path / f"run{i}")
        except Exception as error:
            outcome, faults = "unhandled", [f"unhandled {type(error).__name__}: {error}"[:300]]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        wrong += [f"{kind} {i} ({what}; {task}): {fault}" for fault in faults]
        shutil.rmtree(folder)
    print(kind, outcomes)
    assert not wrong, f"{outcomes}\n" + "\n".join(wrong)


def went(kind: str, folder: Path, rows: Path, task: str, run_folder: Path) -> tuple[str, list[str]]:
    """What became of a folder, and what is wrong with that."""
    columns = {"text": "text", "label": "label"}
    if task == "causal_lm":
        columns = {"prompt": "prompt", "completion": "completion"}
    settings: dict[str, Any] = {
        "model": str(folder),
        "task": task,
        "data": {
            "source": str(rows),
            "columns": columns,
            "eval_fraction": 0.25,
            "max_seq_length": 48,
            "chat_template": "off",
        },
        "method": {"name": "full"},
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "optimizer": {"learning_rate": 1e-3},
        "attention": "sdpa" if supports_sdpa(kind) else "eager",
        "device": "cpu",
    }
    try:
        plan = plan_for(settings)
        plan.model.check_complete()
        json.dumps(estimate(usage_of(plan)).to_dict())
    except TuningError as error:
        assert error.problems and all(problem.message and problem.field for problem in error.problems)
        return "refused", []
    try:
        reference, lacks = plainly(folder, plan) if task == "causal_lm" else (None, None)
    except RuntimeError:  # sizes by which a model is built, and cannot compute: a run can only tell it
        end, _ = run(Job(run_id="r", attempt=1, plan=plan, folder=str(run_folder)))
        return end, [] if end == "failed" else ["trained, where transformers cannot compute"]
    faults = [f"accepted, but transformers says {lacks}"] if lacks else []
    end, events = run(Job(run_id="r", attempt=1, plan=plan, folder=str(run_folder)))
    if end == "failed":
        message = events[-1].data["message"]
        faults.append(f"the run broke off: {message}"[:300]) if events[-1].data.get("traceback") else None
        return "failed", faults
    first = next(event.data["loss"] for event in events if event.kind == "eval")
    if reference is not None and not lacks and first != pytest.approx(reference, rel=2e-4, nan_ok=True):
        faults.append(f"first evaluation {first}, by plain transformers {reference}")
    return "trained", faults


def plainly(folder: Path, plan: Any) -> tuple[float | None, str | None]:
    """The loss of the held-out rows by the plain library, and what it reports of the weights."""
    import torch
    import transformers

    (folder / "adapter_config.json").unlink(missing_ok=True)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation=plan.settings.attention,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"[:200]
    lacking = {name: list(info[name])[:2] for name in ("missing_keys", "mismatched_keys") if info[name]}
    settings = plan.settings
    data = open_data(settings.data, settings.task, settings.seed)
    pairs = encode_pairs(data.eval, TextTokenizer(folder), settings.data, settings.task)
    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for _, row in pairs:
            labels = [token if learned else -100 for token, learned in zip(row.ids, row.trained, strict=True)]
            ids, mask = torch.tensor([row.ids]), torch.ones(1, len(row.ids), dtype=torch.long)
            out = model(input_ids=ids, attention_mask=mask, use_cache=False)
            total += float(
                torch.nn.functional.cross_entropy(
                    out.logits[0, :-1].float(), torch.tensor(labels[1:]), ignore_index=-100, reduction="sum"
                )
            )
            count += row.trained_tokens
    return total / count, str(lacking) if lacking else None
