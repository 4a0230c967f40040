"""CPU time per micro-step: our loop against a bare PyTorch loop and transformers.Trainer, same model, rows and order.

The table has ratios to the bare loop, over interleaved repeats. That loop clips, accumulates and keeps a schedule too,
and computes logits at every position as the usual loop does.
"""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any

from tuning.bench.measure import interleaved, markdown, training_rows
from tuning.plan.micro_batches import cut, epoch_update_batches
from tuning.plan.plan import Plan, plan_for

STEPS, MICRO, ACCUMULATION = 8, 4, 4


def table(repeats: int) -> str:
    """Measure and draw the table."""
    blocks = [_compare(name, repeats) for name in ("full", "lora")]
    return "\n".join(blocks)


def _compare(method: str, repeats: int) -> str:
    plan = plan_for(
        {
            "max_steps": STEPS,
            "micro_batch_size": MICRO,
            "gradient_accumulation_steps": ACCUMULATION,
            "method": {"name": method},
            "device": "cpu",
            "data": {"group_by_length": False},
        }
    )
    rows = training_rows(plan)
    works = {
        "bare PyTorch loop": lambda: _bare(plan, rows),
        "ours": lambda: _ours(plan, rows),
        "transformers.Trainer": lambda: _trainer(plan, rows),
    }
    for work in works.values():  # a first round outside the measurement warms every path
        work()
    medians = interleaved(works, repeats)
    bare = medians["bare PyTorch loop"]
    lines = [
        [name, f"{seconds / (STEPS * ACCUMULATION) * 1000:.1f}", f"{seconds / bare:.2f}x"]
        for name, seconds in medians.items()
    ]
    title = f"CPU ms per micro-step, {method}, {MICRO} rows, accumulation {ACCUMULATION}, median of {repeats}"
    return markdown(title, ["loop", "ms", "against bare"], lines)


def _built(plan: Plan) -> Any:
    from tuning.training.build import build

    return build(plan.settings, plan.model.path, None, plan.value("learning_rate"), 0)


def _ours(plan: Plan, rows: list[Any]) -> float:
    from tuning.training.build import own_threads
    from tuning.training.loop import LoopConfig, Progress, train

    built = _built(plan)
    with own_threads(1):
        began = time.thread_time()
        for _ in train(built, rows, LoopConfig.of(plan), Progress(), lambda: True):
            pass
        return time.thread_time() - began


def _update_batches(rows: list[Any]) -> list[list[list[Any]]]:
    """The same rows in the same order for everybody: updates, each a list of micro-batches."""
    lengths = [len(row.ids) for row in rows]
    batches = epoch_update_batches(len(rows), 0, 0, MICRO * ACCUMULATION)[:STEPS]
    return [[[rows[i] for i in part] for part in cut(batch, lengths, MICRO, by_length=False)] for batch in batches]


def _tensors(micro_batch: list[Any]) -> dict[str, Any]:
    import torch

    width = max(len(row.ids) for row in micro_batch)
    ids = torch.zeros((len(micro_batch), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(micro_batch), width), -100, dtype=torch.long)
    for index, row in enumerate(micro_batch):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        mask[index, : len(row.ids)] = 1
        labels[index, : len(row.ids)] = torch.tensor(
            [token if trained else -100 for token, trained in zip(row.ids, row.trained)]
        )
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _bare(plan: Plan, rows: list[Any]) -> float:
    import torch

    from tuning.training.build import own_threads

    built = _built(plan)
    update_batches = _update_batches(rows)
    with own_threads(1):
        built.model.train()
        began = time.thread_time()
        for update, update_batch in enumerate(update_batches):
            counted = sum(row.trained_tokens for micro_batch in update_batch for row in micro_batch)
            for micro_batch in update_batch:
                batch = _tensors(micro_batch)
                logits = built.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                loss = torch.nn.functional.cross_entropy(
                    logits[:, :-1].reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1), reduction="sum"
                )
                (loss / counted).backward()
            torch.nn.utils.clip_grad_norm_(built.trainable, 1.0)
            for group in built.optimizer.param_groups:
                group["lr"] = plan.value("learning_rate") * 0.5 * (1 + math.cos(math.pi * update / STEPS))
            built.optimizer.step()
            built.optimizer.zero_grad(set_to_none=True)
        return time.thread_time() - began


def _trainer(plan: Plan, rows: list[Any]) -> float:
    import torch
    from transformers import Trainer, TrainingArguments

    from tuning.training.build import own_threads

    built = _built(plan)
    flat = [micro_batch for update_batch in _update_batches(rows) for micro_batch in update_batch]
    with own_threads(1), tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=ACCUMULATION,
            learning_rate=plan.value("learning_rate"),
            lr_scheduler_type="cosine",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )

        class InOrder(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return torch.utils.data.SequentialSampler(flat)

            def log(self, *_: Any, **__: Any) -> None:
                """Nothing is printed: writing to the terminal is not what is measured."""

        trainer = InOrder(
            model=built.model,
            args=arguments,
            train_dataset=flat,
            data_collator=lambda micro_batches: _tensors(micro_batches[0]),
        )
        began = time.thread_time()
        trainer.train()
        return time.thread_time() - began
