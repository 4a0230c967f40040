"""The tracer: one update of the real training code on a model without weights.

The model is built by `training.build` and the update made by `training.loop`, so that their own allocations are what is
counted. For a child process that imports torch: `Tensor.backward` and the end of autocast are watched.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.memory.tracing.cuda_dtypes import cuda_allocations
from tuning.memory.tracing.fake_tensors import AllocationLog, SizeOnlyMode
from tuning.memory.tracing.layers import Layout
from tuning.memory.tracing.trace import Trace
from tuning.memory.workload import CATEGORIES, Workload
from tuning.methods import method_named
from tuning.plan.micro_batches import BatchShape
from tuning.settings.schema import Settings
from tuning.text import EncodedRow
from tuning.training.build import build
from tuning.training.evaluate import evaluate
from tuning.training.features import FeatureCache
from tuning.training.loop import LoopConfig, Progress, update_once
from tuning.training.probes import quantization

WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, WORKSPACE = range(len(CATEGORIES))


class Tracer:
    """A model of some of the workload's layers, built once; `trace` may be called for many shapes.

    `config` is that of the model to build: the workload's own, with `depth` layers. `sizes` caches the sizes of the
    operations' results, and can be shared by tracers. `positions` are the tokens that a row can have.
    """

    def __init__(
        self,
        workload: Workload,
        config: dict[str, Any],
        depth: int,
        rank: int | None,
        sizes: dict[Any, Any],
        *,
        positions: int = 16,
    ) -> None:
        self._workload, self._depth = workload, depth
        self._log = AllocationLog(len(CATEGORIES))
        self._in_backward, self._micro = False, 0
        self._mode = SizeOnlyMode(self._log, sizes)
        self._settings = Settings.from_dict(workload.settings_for(rank))
        class_names = [str(i) for i in range(workload.class_count)] if workload.class_count else None
        with self._mode, tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            self._built = build(self._settings, folder, class_names, 1e-4, 0, load=_base_from_config)
        self._kernels = cuda_allocations if workload.on_cuda else nullcontext
        for weight in self._built.model.parameters():
            self._log.forget_content(weight)  # a small one is really there, with whatever lay in that memory
        self._layers = _layers(self._built.model, depth)
        self._watch()
        # the optimizer's state exists from now on
        length = max(2, min(16, positions))
        self._update(BatchShape(rows=1, length=length, label_tokens=min(4, length - 1), padded=False), count=1)
        for state in self._built.optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    self._log.recategorise(value, OPTIMIZER)
        self._layer_bytes = [self._bytes_of(layer) for layer in self._layers]

    def set_window(self, tokens: int) -> None:
        """Give attention over a window another width: masks are made from the config at each pass."""
        for module in self._built.model.modules():
            config: Any = getattr(module, "config", None)
            if getattr(config, "sliding_window", None) is not None:
                config.sliding_window = tokens

    def trace(self, shape: BatchShape) -> Trace:
        """One update of two micro-batches of this shape."""
        self._update(shape)
        return self._recorded()

    def _recorded(self) -> Trace:
        return Trace(labels=self._log.events, columns=self._log.columns(), layers=self._layer_bytes)

    def evaluation(self, shape: BatchShape) -> Trace:
        """One evaluation of a batch of this shape, between two updates.

        Where a frozen body's features are cached, their computing belongs to it. That comes before the first update,
        when the optimizer has no state yet.
        """
        rows, log = _rows(shape, classes=self._built.classes), self._log
        self._built = replace(self._built, features=None)
        self._micro, caching_events = 0, 0
        log.begin()
        with self._mode, self._kernels(), _traced_backward(self, log):
            log.recording = True
            self._enter("start", ACTIVATIONS)
            try:
                self._cache_features(rows)
                if self._built.features is not None:
                    caching_events = len(log.events)
                evaluate(self._built, rows, batch_size=len(rows))
            finally:
                log.recording = False
        trace = self._recorded()
        return trace.only(*_before_the_first_update(trace.labels, caching_events)) if caching_events else trace

    def outside(self) -> int:
        """Parameters that belong to no layer."""
        inside = sum(_elements(weight) for layer in self._layers for weight in layer.parameters())
        return sum(_elements(weight) for weight in self._built.model.parameters()) - inside

    def counts(self, layout: Layout) -> tuple[int, int]:
        """Trainable and total parameters of the whole model, the layers that were left out included."""
        counts = []
        for chosen in (lambda weight: weight.requires_grad, lambda weight: True):
            built = sum(_elements(weight) for weight in self._built.model.parameters() if chosen(weight))
            left_out = (
                layout.stands_for[i] * _elements(weight)
                for i in layout.representatives()
                for weight in self._layers[i].parameters()
                if chosen(weight)
            )
            counts.append(built + sum(left_out))
        return counts[0], counts[1]

    def _update(self, shape: BatchShape, *, count: int = 2) -> None:
        """One update of `count` micro-batches of this shape."""
        rows = _rows(_halved(shape) if self._workload.packed else shape, classes=self._built.classes)
        micro_batches = [list(range(len(rows)))] * count
        log = self._log
        # neither the rate nor the number of updates has a part in the memory of one
        config = LoopConfig(
            settings=self._settings,
            total_steps=10,
            effective_batch=2 * len(rows),
            learning_rate=1e-4,
            packing=bool(self._settings.data.packing),
        )
        self._micro, log.category = 0, ACTIVATIONS

        def should_continue() -> bool:
            """Called before each micro-batch, when nothing of the one before is left but its rows and gradients."""
            log.mark(log.segment + "|")
            return True

        with self._mode, self._kernels(), _traced_backward(self, log):
            self._cache_features(rows)
            log.begin()
            log.recording, log.category = True, ACTIVATIONS
            self._enter("start", ACTIVATIONS)
            try:
                update_once(self._built, rows, micro_batches, config, Progress(), should_continue)
            finally:
                log.recording = False
        log.mark("end")

    def _cache_features(self, rows: list[EncodedRow]) -> None:
        """Cache the features of a frozen body, as a run does once: updates read those."""
        built = self._built = replace(self._built, features=None)  # those of the last shape go first
        if not method_named(self._settings.method.name).caches_features(self._settings.method):
            return
        features = FeatureCache(
            built.model, built.autocast, pad_id=built.pad_id, classes=built.classes, device=built.device
        )
        for _ in features.fill(rows, len(rows), lambda: True):
            pass
        self._built = replace(built, features=features)

    # -- the segment of the step ----------------------------------------------------------------------------------
    def _enter(self, segment: str, category: int) -> None:
        if not self._log.recording:
            return
        self._log.segment = f"{self._micro}.{segment}"
        self._log.category = category
        self._log.mark(self._log.segment + "|")

    def _watch(self) -> None:
        for i, layer in enumerate(self._layers):
            layer.register_forward_pre_hook(lambda *_, i=i: self._forward(f"forward {i}"))
            layer.register_forward_hook(lambda _module, _input, out, i=i: self._after(i, out))
        for weight in self._built.trainable:
            weight.register_post_accumulate_grad_hook(lambda weight: self._log.recategorise(weight.grad, GRADIENTS))
        for tensor in [*self._built.model.parameters(), *self._built.model.buffers()]:
            self._log.recategorise(tensor, WEIGHTS)

    def _forward(self, segment: str) -> None:
        if not self._in_backward:
            self._enter(segment, ACTIVATIONS)

    def _after(self, i: int, out: Any) -> None:
        """Layer `i` has ended its forward pass with this output: its backward pass begins with the gradient of that."""
        if self._in_backward:
            return
        hidden = out[0] if isinstance(out, tuple) else out
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda grad: self._enter(f"backward {i}", ACTIVATIONS))
        if i == self._depth - 1:
            self._enter("loss", LOGITS)

    def _bytes_of(self, layer: nn.Module) -> tuple[int, ...]:
        """Bytes by category that a layer has between updates: weights, gradients where trained, optimizer state."""
        sizes = [0] * len(CATEGORIES)
        state = self._built.optimizer.state
        for weight in {id(tensor): tensor for tensor in [*layer.parameters(), *layer.buffers()]}.values():
            sizes[WEIGHTS] += weight.untyped_storage().nbytes()
            if weight.requires_grad:
                sizes[GRADIENTS] += weight.numel() * weight.element_size()
            sizes[OPTIMIZER] += sum(
                value.untyped_storage().nbytes()
                for value in state.get(weight, {}).values()
                if isinstance(value, torch.Tensor)
            )
            sizes[WEIGHTS] += sum(scale.untyped_storage().nbytes() for scale in quantization(weight))
        return tuple(sizes)


def _before_the_first_update(labels: list[str], caching_events: int) -> tuple[list[int], tuple[int, int]]:
    """The events to keep of an evaluation, and the category that the first so many of them are without.

    In the first `caching_events` a frozen body's features are cached, row by row: of those only the events that occur
    for any number of rows count, and the last, which is the highest. The optimizer has no state then.
    """
    body = [i for i, label in enumerate(labels[:caching_events]) if ".loss" not in label] + [caching_events - 1]
    return [*body, *range(caching_events, len(labels))], (OPTIMIZER, len(body))


def _elements(weight: nn.Parameter) -> int:
    """Elements of a parameter; of one packed in 4 bits, those before packing."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def _layers(model: nn.Module, depth: int) -> list[nn.Module]:
    """The decoder's (or encoder's) blocks: the first list of modules that is as long as the model is deep."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    return []


@contextmanager
def _traced_backward(tracer: Tracer, log: AllocationLog) -> Iterator[None]:
    """Within this, the log's segments say when a backward pass begins and ends, and when the update begins."""
    backward, leave = torch.Tensor.backward, torch.autocast.__exit__

    def traced_exit(self: torch.autocast, *args: Any) -> Any:
        result = leave(self, *args)
        if log.segment.endswith(".loss"):  # the 16-bit copies of weights that nothing else holds are gone now
            tracer._enter("loss value", LOGITS)
        return result

    def traced_backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        tracer._in_backward = True
        tracer._enter("backward loss", LOGITS)
        backward(self, *args, **kwargs)
        tracer._in_backward = False
        tracer._micro += 1
        tracer._enter("start" if tracer._micro < 2 else "update", ACTIVATIONS if tracer._micro < 2 else WORKSPACE)

    torch.Tensor.backward, torch.autocast.__exit__ = traced_backward, traced_exit  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.backward, torch.autocast.__exit__ = backward, leave  # type: ignore[method-assign]


def _base_from_config(
    folder: str,
    *,
    class_names: Sequence[str] | None,
    attention: str,
    dtype: torch.dtype,
    pad_id: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A base model from the config.json of a folder alone, in place of `training.build.load_base`."""
    import transformers

    label_options = {"num_labels": len(class_names)} if class_names is not None else {}
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **label_options)
    auto_class = (
        transformers.AutoModelForCausalLM if class_names is None else transformers.AutoModelForSequenceClassification
    )
    model = auto_class.from_config(config, attn_implementation=attention, dtype=dtype)
    if options and "quantization_config" in options:
        _pack(model, options["quantization_config"])
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad_id
    weightless: nn.Module = model
    return weightless


def _pack(model: Any, quantization: Any) -> None:
    """Pack the linear layers in 4 bits, as `from_pretrained` does with a quantization config."""
    import bitsandbytes
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    replace_with_bnb_linear(
        model, modules_to_not_convert=quantization.llm_int8_skip_modules, quantization_config=quantization
    )
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            old: Any = layer.weight
            layer.weight = bitsandbytes.nn.Params4bit(
                torch.empty(old.shape, dtype=model.dtype),
                requires_grad=False,
                quant_type=old.quant_type,
                compress_statistics=old.compress_statistics,
                quant_storage=old.quant_storage,
                module=layer,
            )._quantize("cpu")
            if layer.bias is not None:
                layer.bias = nn.Parameter(torch.empty(layer.bias.shape, dtype=model.dtype), requires_grad=False)
    model.config.quantization_config = quantization
    model.quantization_method, model.is_loaded_in_4bit = quantization.quantization_method(), True


def _halved(shape: BatchShape) -> BatchShape:
    """The two rows that are joined into a packed one; attention separates them as it would any number of rows."""
    return replace(shape, rows=2, length=shape.length // 2)


def _rows(shape: BatchShape, *, classes: bool) -> list[EncodedRow]:
    """Rows of this shape, with label tokens at the end of each, spread as evenly as they can be."""
    rows = []
    left = shape.label_tokens
    for i in range(shape.rows):
        length = shape.length - (1 if shape.padded and i else 0)
        count = min(length - 1, -(-left // (shape.rows - i)))
        left -= count
        trained = [False] * (length - count) + [True] * count
        rows.append(EncodedRow(ids=[5] * length, trained=trained, label=0 if classes else None, cut=False))
    return rows
