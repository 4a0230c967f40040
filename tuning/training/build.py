"""What a loop needs, built from a plan: base model, method, device, optimizer.

Comes in: the settings, the folder of the base model, the resolved learning rate.  Goes out: `Built`.  Models come from
local safetensors folders only; no remote code, no pickle, no download.  Nothing global is changed: dtypes are
explicit, and the thread count belongs to the calling thread (`own_threads`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tuning.errors import ModelError, RunError
from tuning.methods import method_named
from tuning.settings import Settings
from tuning.text import Encoded
from tuning.training.batches import Batch, collate
from tuning.training.features import FeatureCache
from tuning.training.optimizers import make_optimizer

_SMALL_MODEL = 20_000_000
"""Below this many parameters a second thread costs more than it brings, as soon as the machine does anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model ready to train, with everything that belongs to it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    trainable: list[nn.Parameter]
    device: torch.device
    pad_id: int
    classes: bool
    autocast_dtype: torch.dtype | None
    features: FeatureCache | None = None
    """States kept of a frozen body; None where each pass computes them."""

    def batch(self, rows: Sequence[Encoded], packing: bool = False) -> Batch:
        """The micro-batch of these rows, on the device."""
        if self.features is not None:
            return self.features.batch(rows)
        return collate(rows, pad_id=self.pad_id, classes=self.classes, packing=packing, device=self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context forward passes run in; the master weights stay as they are."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)


def pick_device(name: str) -> torch.device:
    """The device a run trains on: `auto` is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"device is {name}, but this machine has no CUDA device; use auto or cpu.")
    return torch.device(name)


@contextmanager
def own_threads(parameters: int) -> Iterator[None]:
    """Give the calling thread a thread count that fits the model, and put the old one back afterwards."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    fitting = 1 if parameters < _SMALL_MODEL else max(1, (os.cpu_count() or 2) - 1)
    before = torch.get_num_threads()
    torch.set_num_threads(int(asked) if asked.isdigit() and int(asked) > 0 else fitting)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a run (dropout and initial weights draw from them), and restore them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.manual_seed(seed)
        yield


def load_base(
    folder: str,
    *,
    labels: Sequence[str] | None,
    attention: str,
    dtype: torch.dtype,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The base model of a local folder: for text, or with a fresh classification head when there are labels.

    `options` are a method's own wishes for loading, such as 4-bit weights.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    common = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": dtype,
        "attn_implementation": attention,
        **(options or {}),
    }
    try:
        if labels is None:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **common)
        else:
            names = {number: str(label) for number, label in enumerate(labels)}
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=len(names),
                id2label=names,
                label2id={name: key for key, name in names.items()},
                **common,
            )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"The model in {folder} cannot be loaded: {error}", folder) from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id
    return model


def build(settings: Settings, folder: str, labels: Sequence[str] | None, learning_rate: float, pad_id: int) -> Built:
    """Load, apply the method, make the optimizer over what is trainable."""
    device = pick_device(settings.device)
    attention = {"flash": "flash_attention_2", "flex": "flex_attention"}.get(settings.attention, settings.attention)
    method = method_named(settings.method.name)
    model = load_base(
        folder,
        labels=labels,
        attention=attention,
        dtype=torch.float32,
        pad_id=pad_id,
        options=method.load_options(settings.method, device.type),
    )
    model = method.apply(model, settings.method, settings.task).to(device)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable and method.updates:
        raise RunError(f"The method {settings.method.name} leaves nothing to train on this model.")
    # torch allows no optimizer over nothing, and a method without updates never steps it
    moving = trainable or [nn.Parameter(torch.zeros(()))]
    own = method.optimizer(model, settings.method, settings.optimizer, learning_rate)
    return Built(
        model=model,
        optimizer=own or make_optimizer(settings.optimizer, moving, learning_rate),
        trainable=trainable,
        device=device,
        pad_id=pad_id,
        classes=labels is not None,
        autocast_dtype=torch.bfloat16 if settings.precision == "autocast_bf16" else None,
    )
