"""Artifacts of a run that has ended: merged into the base model, or recovered from a checkpoint.

Each is a folder in the job's own, which appears whole or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from tuning.core.errors import RunError, ShouldContinue
from tuning.core.files import new_folder
from tuning.methods import method_named
from tuning.text import TextTokenizer
from tuning.training.build import Built, base_of, build, own_random_state, pick_device, stop_between_tensors
from tuning.training.checkpoint import newest_checkpoint, read_weights
from tuning.training.checkpoint_files import BEST_FILE, RecoverySource, best_weights
from tuning.training.job import Job
from tuning.training.save import copy_tokenizer, same_modes, save_artifact, saved_class_names, train_on

log = logging.getLogger(__name__)
MERGED = "merged"


def merged_folder(job: Job, card: str, *, best: bool = False, should_continue: ShouldContinue = lambda: True) -> Path:
    """Merge what was learned into the weights of the base model; with `best` the best weights, where they are saved.

    Raises RunError where the method cannot be merged, and Stopped soon after `should_continue` answers False.
    """
    settings, folder = job.plan.settings, Path(job.folder)
    method = method_named(settings.method.name)
    if best and (folder / "best" / method.artifact).is_dir():
        folder = folder / "best"
    artifact, target = folder / method.artifact, folder / MERGED
    if target.is_dir() and target.stat().st_mtime >= artifact.stat().st_mtime:
        return target
    class_names = saved_class_names(artifact)
    tokenizer = TextTokenizer(job.plan.model.path)
    # fresh heads and adapters draw their weights before the saved ones come
    with torch.random.fork_rng(devices=[]), stop_between_tensors(should_continue):
        base = base_of(settings, job.plan.model.path, class_names, tokenizer.pad_id or 0)
        merged = method.merge(method.load(base, artifact))
    if merged is None:
        raise RunError(f"{method.title} cannot be merged into the base model; download it as it was trained.")
    with new_folder(target) as part:
        with stop_between_tensors(should_continue):
            merged.save_pretrained(part)
        copy_tokenizer(Path(job.plan.model.path), part)
        (part / "README.md").write_text(card, encoding="utf-8")
        same_modes(part)
    return target


def recovered_artifact(
    job: Job, card_of: Callable[[RecoverySource], str], should_continue: ShouldContinue = lambda: True
) -> Path:
    """Save the artifact of a run that was cut off, from its newest checkpoint that can be read, or its best weights.

    `card_of` returns the model card for the weights that were read. Raises RunError where there is neither, and
    Stopped.
    """
    settings, plan, folder = job.plan.settings, job.plan, Path(job.folder)
    tokenizer = TextTokenizer(plan.model.path)
    class_names = plan.data.label_names if job.plan.class_count else None
    with own_random_state(settings.seed, pick_device(settings.device)), stop_between_tensors(should_continue):
        built: Built = build(
            settings,
            plan.model.path,
            class_names,
            plan.value("learning_rate"),
            tokenizer.pad_id or 0,
        )
        train_on(built.model, plan, class_names)
        checkpoint = newest_checkpoint(built, folder, plan.fingerprint, log.warning)
        with torch.no_grad():
            if checkpoint is not None:
                checkpoint.restore_weights(built)
                source: RecoverySource = {"kind": "checkpoint", "step": checkpoint.progress.step}
            elif (best := best_weights(folder)) is not None:
                read_weights(built, folder / BEST_FILE)
                source = {"kind": "best", "step": best[0]}
            else:
                raise RunError("This run was cut off before its first checkpoint or evaluation: nothing is kept.")
        return save_artifact(
            built.model,
            method_named(settings.method.name),
            folder,
            plan.model,
            class_names,
            card_of(source),
        )
