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
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tuning.core.errors import GoOn, ModelError, RunError, check_stop
from tuning.methods import method_named
from tuning.models.base_model import class_names, read_json
from tuning.models.shapes import counts_from_padding
from tuning.models.tensors import Tensor, read_tensors
from tuning.models.torch_weights import report_of
from tuning.models.weights import judged, same_classes, weight_files
from tuning.settings.schema import Settings
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


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the generators that a run on this device draws from, by the kind of device."""
    found = {"cpu": torch.random.get_rng_state()}
    return found | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found


def set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators back to such states; what was drawn on a card counts for a card only."""
    torch.random.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def look_between_tensors(should_continue: GoOn) -> Iterator[None]:
    """Within this, what torch does in the calling thread ends with Stopped soon after `should_continue` answers False.

    For the long work of libraries that ask nobody: reading weights, making adapters out of them, merging, each of which
    goes from tensor to tensor. What such a library had changed for the thread or the process in between is put back:
    its own way back may be the call at which this ends.
    """
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        with _Looking(should_continue):
            yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)


class _Looking(TorchFunctionMode):
    """Asks before each call of torch."""

    def __init__(self, should_continue: GoOn) -> None:
        super().__init__()
        self._should_continue = should_continue

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        check_stop(self._should_continue)
        return function(*args, **(kwargs or {}))


class BaseLoader(Protocol):
    """A way to make the base model of a local folder: `load_base`, or one that leaves the weights out."""

    def __call__(
        self,
        folder: str,
        *,
        labels: Sequence[str] | None,
        attention: str,
        dtype: torch.dtype,
        pad_id: int,
        options: Mapping[str, Any] | None = None,
    ) -> nn.Module: ...


def load_base(
    folder: str,
    *,
    labels: Sequence[str] | None,
    attention: str,
    dtype: torch.dtype,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The base model of a local folder: for text, or with a classification head when there are labels.

    A head that is there for the same classes is kept, in the order of `labels`; else it is new, drawn from torch's
    generator. Nothing else is ever random: what the library reports of missing, left out and unfitting tensors raises
    ModelError. `options` are a method's own wishes for loading, such as 4-bit weights.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place = Path(folder)
    if (place / "adapter_config.json").is_file():  # the library would load it into the base, silently
        raise ModelError(f"{folder} holds an adapter beside the model; move it out", folder, "a model alone")
    common: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": dtype,
        "attn_implementation": attention,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are in the report, and are told in words
        **(options or {}),
    }
    maker: Any = transformers.AutoModelForCausalLM
    theirs = class_names(read_json(place / "config.json"))
    kept = labels is not None and same_classes(theirs, labels)
    if labels is not None:
        maker = transformers.AutoModelForSequenceClassification
        common |= _named(theirs if kept else labels)
    try:
        model, info = maker.from_pretrained(folder, **common)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ModelError(f"The model in {folder} cannot be loaded: {error}", folder) from error
    report = report_of(model, info, _tensors(place))
    found = judged(report, folder, read_json(place / "config.json"))
    if labels is not None and found.head_for and not kept:
        _draw_head(model, report["head"])
    elif kept and tuple(theirs) != tuple(labels or ()):
        _order_head(model, theirs, labels or ())
    _set_padding(model, pad_id)
    return model


def _named(labels: Sequence[str]) -> dict[str, Any]:
    """What a config is told of its classes."""
    names = {number: str(label) for number, label in enumerate(labels)}
    return {"num_labels": len(names), "id2label": names, "label2id": {name: key for key, name in names.items()}}


def _tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        found |= read_tensors(file)
    return found


def _draw_head(model: Any, names: Sequence[str]) -> None:
    """A new head in place of one for other classes of the same number, as the library draws one that is missing."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    for name in names:
        model.get_parameter(name)._is_hf_initialized = False
    for name in modules:
        model._init_weights(model.get_submodule(name))


def _order_head(model: Any, theirs: Sequence[str], ours: Sequence[str]) -> None:
    """Put the lines of the head's last layer, one a class, into another order of the same classes."""
    lines = torch.tensor([list(theirs).index(name) for name in ours])
    last = [one for one in model.modules() if isinstance(one, nn.Linear) and one.out_features == len(ours)][-1]
    with torch.no_grad():
        for weight in (last.weight, last.bias):
            if weight is not None:
                weight.copy_(weight[lines].clone())
    for key, value in _named(ours).items():
        if key != "num_labels":
            setattr(model.config, key, value)


def _set_padding(model: Any, pad_id: int) -> None:
    """The tokenizer's padding token is the model's: rows are filled up with it, and no other token is taken for one.

    Kinds that count positions from the padding token keep their own, which says where a text begins.
    """
    config = model.config
    own = getattr(config, "pad_token_id", None)  # the config of some kinds has no such member
    if own == pad_id or (own is not None and counts_from_padding(config.model_type)):
        return
    embedding = model.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) is not None:  # the token of that id would never be learned
        embedding.padding_idx = pad_id
    config.pad_token_id = pad_id


ATTENTION = {"flash": "flash_attention_2", "flex": "flex_attention"}
"""The library's names of `attention`, where they are others."""


def base_of(
    settings: Settings,
    folder: str,
    labels: Sequence[str] | None,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
    load: BaseLoader = load_base,
) -> nn.Module:
    """The base model as a run of these settings loads it, on its device: for training, and for whoever loads it again
    (to merge, to ask, to prepare rows), so that attention, number format and device are always the run's own."""
    attention = ATTENTION.get(settings.attention, settings.attention)
    model = load(folder, labels=labels, attention=attention, dtype=torch.float32, pad_id=pad_id, options=options)
    return model if options else model.to(pick_device(settings.device))


def build(
    settings: Settings,
    folder: str,
    labels: Sequence[str] | None,
    learning_rate: float,
    pad_id: int,
    *,
    load: BaseLoader = load_base,
) -> Built:
    """Load, apply the method, make the optimizer over what is trainable.

    `load` gives the base model of the folder; the memory tracer passes one that makes a model without weights.
    """
    device = pick_device(settings.device)
    method = method_named(settings.method.name)
    model = base_of(settings, folder, labels, pad_id, method.load_options(settings.method, device.type), load)
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
