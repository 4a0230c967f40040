"""What the loop trains, built from settings: base model, method, device, optimizer.

Models come from local safetensors folders only; no remote code, no pickle, no download. Nothing global is changed:
dtypes are explicit, and the thread count belongs to the calling thread (`own_threads`).
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

from tuning.core.errors import ModelError, RunError, ShouldContinue, check_stop
from tuning.methods import method_named
from tuning.models.base_model import config_class_names, read_json
from tuning.models.shapes import counts_from_padding
from tuning.models.tensors import Tensor, read_tensors
from tuning.models.torch_weights import report_of
from tuning.models.weights import comparison_of_report, same_classes, weight_files
from tuning.settings.schema import Settings
from tuning.text import EncodedRow
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
    """Cached states of a frozen body; None where each forward pass computes them."""

    def batch(self, rows: Sequence[EncodedRow], packing: bool = False) -> Batch:
        """The batch of these rows, on the device."""
        if self.features is not None:
            return self.features.batch(rows)
        return collate(rows, pad_id=self.pad_id, classes=self.classes, packing=packing, device=self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context for forward passes; the weights keep their dtype."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)


def pick_device(name: str) -> torch.device:
    """The device a run trains on: `auto` is CUDA where there is one. Raises RunError where a device is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"device is {name}, but this machine has no CUDA device; use auto or cpu.")
    return torch.device(name)


@contextmanager
def own_threads(parameters: int) -> Iterator[None]:
    """Within this context torch uses as many threads as suit a model of so many parameters."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    suitable = 1 if parameters < _SMALL_MODEL else max(1, (os.cpu_count() or 2) - 1)
    before = torch.get_num_threads()
    torch.set_num_threads(int(requested) if requested.isdigit() and int(requested) > 0 else suitable)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Within this context torch's global random generators are seeded; afterwards they are restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the random generators that a run on this device draws from, by the type of device."""
    states = {"cpu": torch.random.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore states of `random_state`. That of a CUDA device is restored on a CUDA device only."""
    torch.random.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def stop_between_tensors(should_continue: ShouldContinue) -> Iterator[None]:
    """Within this context torch raises Stopped in the calling thread soon after `should_continue` answers False.

    It is for long work of libraries that cannot be stopped otherwise, which goes from tensor to tensor: reading
    weights, making adapters, merging. Whether gradients are made and the default dtype are restored at the end, for a
    library that is stopped in the middle may not restore them.
    """
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        with _StopBetweenCalls(should_continue):
            yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)


class _StopBetweenCalls(TorchFunctionMode):
    """Calls `should_continue` before each call of torch, and raises Stopped where it answers False."""

    def __init__(self, should_continue: ShouldContinue) -> None:
        super().__init__()
        self._should_continue = should_continue

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        check_stop(self._should_continue)
        return function(*args, **(kwargs or {}))


class BaseLoader(Protocol):
    """A function that makes the base model of a local folder: `load_base`, or one that makes it without weights."""

    def __call__(
        self,
        folder: str,
        *,
        class_names: Sequence[str] | None,
        attention: str,
        dtype: torch.dtype,
        pad_id: int,
        options: Mapping[str, Any] | None = None,
    ) -> nn.Module: ...


def load_base(
    folder: str,
    *,
    class_names: Sequence[str] | None,
    attention: str,
    dtype: torch.dtype,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The base model of a local folder: for text, or with a classification head when there are class names.

    A head that was saved for the same classes is taken, in the order of `class_names`; else it is new, drawn from
    torch's generator. Nothing else is ever random: where tensors are missing, left over or of another shape, this
    raises ModelError. `options` are a method's own arguments for loading, such as 4-bit weights.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(folder)
    if (path / "adapter_config.json").is_file():  # the library would load it into the base, silently
        raise ModelError(f"{folder} holds an adapter beside the model; move it out", folder, "a model alone")
    arguments: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": dtype,
        "attn_implementation": attention,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are in the report, which `judged` puts into words
        **(options or {}),
    }
    model_class: Any = transformers.AutoModelForCausalLM
    saved_class_names = config_class_names(read_json(path / "config.json"))
    keep_head = class_names is not None and same_classes(saved_class_names, class_names)
    if class_names is not None:
        model_class = transformers.AutoModelForSequenceClassification
        arguments |= _config_of_classes(saved_class_names if keep_head else class_names)
    try:
        model, info = model_class.from_pretrained(folder, **arguments)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ModelError(f"The model in {folder} cannot be loaded: {error}", folder) from error
    report = report_of(model, info, _tensors(path))
    comparison = comparison_of_report(report, folder, read_json(path / "config.json"))
    if class_names is not None and comparison.head_for and not keep_head:
        _draw_head(model, report["head"])
    elif keep_head and tuple(saved_class_names) != tuple(class_names or ()):
        _order_head(model, saved_class_names, class_names or ())
    _set_padding(model, pad_id)
    base: nn.Module = model
    return base


def _config_of_classes(class_names: Sequence[str]) -> dict[str, Any]:
    """The members of a transformers config that name these classes."""
    names = {index: str(label) for index, label in enumerate(class_names)}
    return {"num_labels": len(names), "id2label": names, "label2id": {name: index for index, name in names.items()}}


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors |= read_tensors(file)
    return tensors


def _draw_head(model: Any, names: Sequence[str]) -> None:
    """Replace a head for other classes of the same number by a new one, drawn as the library draws a missing one."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    for name in names:
        model.get_parameter(name)._is_hf_initialized = False
    for name in modules:
        model._init_weights(model.get_submodule(name))


def _order_head(model: Any, old: Sequence[str], new: Sequence[str]) -> None:
    """Change the order of the classes in the head: the rows of its last layer, and the names in the config."""
    order = torch.tensor([list(old).index(name) for name in new])
    layers = (module for module in model.modules() if isinstance(module, nn.Linear))
    last = [layer for layer in layers if layer.out_features == len(new)][-1]
    with torch.no_grad():
        for weight in (last.weight, last.bias):
            if weight is not None:
                weight.copy_(weight[order].clone())
    for key, value in _config_of_classes(new).items():
        if key != "num_labels":
            setattr(model.config, key, value)


def _set_padding(model: Any, pad_id: int) -> None:
    """Set the model's padding token to the tokenizer's, with which rows are padded.

    Models that count positions from the padding token keep their own, which says where a text begins.
    """
    config = model.config
    own = getattr(config, "pad_token_id", None)  # the config of some models has no such member
    if own == pad_id or (own is not None and counts_from_padding(config.model_type)):
        return
    embedding = model.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) is not None:  # the token of that id would never be learned
        embedding.padding_idx = pad_id
    config.pad_token_id = pad_id


ATTENTION = {"flash": "flash_attention_2", "flex": "flex_attention"}
"""Values of the setting `attention` that transformers calls by another name."""


def base_of(
    settings: Settings,
    folder: str,
    class_names: Sequence[str] | None,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
    load: BaseLoader = load_base,
) -> nn.Module:
    """The base model as a run of these settings loads it, on its device.

    For training, and for merging, questions and recipes, so that attention, dtype and device are the run's own.
    """
    attention = ATTENTION.get(settings.attention, settings.attention)
    model = load(
        folder, class_names=class_names, attention=attention, dtype=torch.float32, pad_id=pad_id, options=options
    )
    return model if options else model.to(pick_device(settings.device))


def build(
    settings: Settings,
    folder: str,
    class_names: Sequence[str] | None,
    learning_rate: float,
    pad_id: int,
    *,
    load: BaseLoader = load_base,
) -> Built:
    """Load the base model, apply the method, and make the optimizer over what is trainable.

    `load` makes the base model of the folder; the memory tracer passes one that makes it without weights.
    """
    device = pick_device(settings.device)
    method = method_named(settings.method.name)
    model = base_of(settings, folder, class_names, pad_id, method.load_options(settings.method, device.type), load)
    model = method.apply(model, settings.method, settings.task).to(device)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable and method.updates:
        raise RunError(f"The method {settings.method.name} leaves nothing to train on this model.")
    # torch makes no optimizer over no parameters; a method without updates never steps this one
    parameters = trainable or [nn.Parameter(torch.zeros(()))]
    of_method = method.optimizer(model, settings.method, settings.optimizer, learning_rate)
    return Built(
        model=model,
        optimizer=of_method or make_optimizer(settings.optimizer, parameters, learning_rate),
        trainable=trainable,
        device=device,
        pad_id=pad_id,
        classes=class_names is not None,
        autocast_dtype=torch.bfloat16 if settings.precision == "autocast_bf16" else None,
    )
