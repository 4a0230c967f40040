"""What accumulation does to the gradient of a classifier: the first update's norm, whole and cut into single rows.

The table has our loop beside transformers.Trainer. Both see the same model, head, rows and order; the same eight rows
must give the same gradient, however they are cut.
"""

from __future__ import annotations

import tempfile
from typing import Any

from tuning.bench.measure import markdown, training_rows
from tuning.plan.plan import Plan, plan_for

CUTS = ((8, 1), (4, 2), (2, 4), (1, 8))


def table(repeats: int) -> str:
    """Exact, so once is enough: `repeats` is not used."""
    lines = []
    for name, first_norm in (("ours", _ours), ("transformers.Trainer", _trainer)):
        norms = [first_norm(_plan(micro, steps)) for micro, steps in CUTS]
        lines.append([name, *(f"{norm:.6f}" for norm in norms), f"{norms[-1] / norms[0]:.3f}x"])
    head = ["loop", *(f"{micro} x {steps}" for micro, steps in CUTS), "1 x 8 against 8 x 1"]
    return markdown("Gradient norm of the first update of a classifier, eight rows", head, lines)


def _plan(micro: int, steps: int) -> Plan:
    return plan_for(
        {
            "task": "sequence_classification",
            "method": {"name": "full"},
            "micro_batch_size": micro,
            "max_steps": 1,
            "gradient_accumulation_steps": steps,
            "device": "cpu",
            "data": {"group_by_length": False, "train_rows": 64},
            "optimizer": {"name": "sgd", "learning_rate": 1e-3, "max_grad_norm": None},
            "schedule": {"name": "constant"},
        }
    )


def _built(plan: Plan) -> Any:
    from tuning.training.build import build, own_random_state, pick_device

    with own_random_state(0, pick_device("cpu")):  # the same fresh head each time
        return build(plan.settings, plan.model.path, plan.data.label_names, plan.value("learning_rate"), 1)


def _ours(plan: Plan) -> float:
    from tuning.training.loop import LoopConfig, Progress, train

    (update,) = train(_built(plan), training_rows(plan)[:8], LoopConfig.of(plan), Progress(), lambda: True)
    return update.grad_norm


def _trainer(plan: Plan) -> float:
    import torch
    from transformers import Trainer, TrainingArguments

    settings, norms = plan.settings, list[float]()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=settings.micro_batch_size,
            optim="sgd",
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            learning_rate=1e-3,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        built = _built(plan)

        class NormRecorder(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is stepped
                """The norm of what would be applied."""
                norms.append(
                    float(torch.nn.utils.get_total_norm([w.grad for w in built.trainable if w.grad is not None]))
                )

        trainer = Trainer(
            model=built.model,
            args=arguments,
            train_dataset=training_rows(plan)[:8],
            data_collator=_classified,
            optimizers=(NormRecorder(built.trainable, lr=1e-3), None),
        )
        trainer.train()
    return norms[0]


def _classified(rows: list[Any]) -> dict[str, Any]:
    import torch

    from tuning.training.batches import collate

    batch = collate(rows, pad_id=1, classes=True, packing=False, device=torch.device("cpu"))
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
