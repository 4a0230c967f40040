"""Trace one update of the real training code on a model without weights.

Comes in: a `Workload` (a config.json, the settings that shape the computation).  Goes out: for each `Shape` asked for,
the live bytes by category after every allocation of the update, in order, named by where in the step they happen.
The model is built by `training.build` and the update made by `training.loop`: what they do is what is counted.
Torch-only, for a child process: the loader of weights is replaced and `Tensor.backward` is watched.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.memory.layers import Layout
from tuning.memory.subject import CATEGORIES, Workload
from tuning.memory.torch_card import cuda_allocations
from tuning.memory.torch_phantom import Ledger, Phantom
from tuning.memory.trace import Trace
from tuning.methods import method_named
from tuning.micro_batches import Shape
from tuning.settings import Settings
from tuning.text import Encoded
from tuning.training import build as build_room
from tuning.training import evaluate as evaluate_room
from tuning.training import loop as loop_room
from tuning.training.features import FeatureCache
from tuning.training.probes import quantization

WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, WORKSPACE = range(len(CATEGORIES))


class Tracer:
    """A model of some of the workload's layers built once; `trace` may be called for many shapes.

    `config` is what is built: the workload's own, with these layers. `sizes` keeps what operations give, and can be
    shared by tracers. `positions` are the tokens that a row can have.
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
        self._ledger = Ledger(len(CATEGORIES))
        self._in_backward, self._micro = False, 0
        self._mode = Phantom(self._ledger, sizes)
        self._settings = Settings.from_dict(workload.settings_for(rank))
        with self._mode, _without_weights(config) as folder:
            labels = [str(number) for number in range(workload.labels)] if workload.labels else None
            self._built = build_room.build(self._settings, folder, labels, 1e-4, 0)
        self._kernels = cuda_allocations if workload.on_cuda else nullcontext
        for weight in self._built.model.parameters():
            self._ledger.lose(weight)  # a small one is really there, with whatever lay in that memory
        self._layers = _layers(self._built.model, depth)
        self._watch()
        # the optimizer's state exists from now on
        length = max(2, min(16, positions))
        self._update(Shape(rows=1, length=length, labels=min(4, length - 1), padded=False), micro_batches=1)
        for state in self._built.optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    self._ledger.recategorise(value, OPTIMIZER)
        self._layer_bytes = [self._bytes_of(layer) for layer in self._layers]

    def set_window(self, tokens: int) -> None:
        """Give attention over a window another width: masks are made from the config at each pass."""
        for module in self._built.model.modules():
            config: Any = getattr(module, "config", None)
            if getattr(config, "sliding_window", None) is not None:
                config.sliding_window = tokens

    def trace(self, shape: Shape) -> Trace:
        """One update of two micro-batches of this shape."""
        self._update(shape)
        return self._recorded()

    def _recorded(self) -> Trace:
        return Trace(labels=self._ledger.events, columns=self._ledger.columns(), layers=self._layer_bytes)

    def evaluation(self, shape: Shape) -> Trace:
        """One evaluation of a batch of this shape, between two updates.

        Where a frozen body's states are kept, their computing belongs to it, which comes before the first update: when
        the optimizer keeps nothing yet.
        """
        rows, ledger = _rows(shape, classes=self._built.classes), self._ledger
        self._built = replace(self._built, features=None)
        self._micro, kept = 0, 0
        ledger.begin()
        with self._mode, self._kernels(), _backward_named(self, ledger):
            ledger.recording = True
            self._enter("start", ACTIVATIONS)
            try:
                self._keep_features(rows)
                if self._built.features is not None:
                    kept = len(ledger.events)
                evaluate_room.evaluate(self._built, rows, batch_size=len(rows))
            finally:
                ledger.recording = False
        found = self._recorded()
        return found if not kept else found.only(*_before_the_first_update(found.labels, kept))

    def outside(self) -> int:
        """Parameters that belong to no layer."""
        inside = sum(_elements(weight) for layer in self._layers for weight in layer.parameters())
        return sum(_elements(weight) for weight in self._built.model.parameters()) - inside

    def counts(self, layout: Layout) -> tuple[int, int]:
        """Trainable and total parameters of the model with the layers that were left out."""
        found = []
        for chosen in (lambda weight: weight.requires_grad, lambda weight: True):
            everywhere = sum(_elements(weight) for weight in self._built.model.parameters() if chosen(weight))
            inside = (
                layout.stands_for[place] * _elements(weight)
                for place in layout.standing()
                for weight in self._layers[place].parameters()
                if chosen(weight)
            )
            found.append(everywhere + sum(inside))
        return found[0], found[1]

    def _update(self, shape: Shape, *, micro_batches: int = 2) -> None:
        rows = _rows(_halved(shape) if self._workload.packed else shape, classes=self._built.classes)
        pieces = [list(range(len(rows)))] * micro_batches
        course = _course(self._settings, len(rows))
        ledger = self._ledger
        self._micro, ledger.category = 0, ACTIVATIONS

        def go_on() -> bool:
            """Asked before each micro-batch, when nothing of the one before is left but its rows and gradients."""
            ledger.mark(ledger.segment + "|")
            return True

        with self._mode, self._kernels(), _backward_named(self, ledger):
            self._keep_features(rows)
            ledger.begin()
            ledger.recording, ledger.category = True, ACTIVATIONS
            self._enter("start", ACTIVATIONS)
            try:
                loop_room._update(self._built, rows, pieces, course, loop_room.Progress(), go_on)
            finally:
                ledger.recording = False
        ledger.mark("end")

    def _keep_features(self, rows: list[Encoded]) -> None:
        """Where the body is frozen a run computes its states once, and updates read those."""
        built = self._built = replace(self._built, features=None)  # what the last shape kept goes first
        if not method_named(self._settings.method.name).caches(self._settings.method):
            return
        kept = FeatureCache(
            built.model, built.autocast, pad_id=built.pad_id, classes=built.classes, device=built.device
        )
        for _ in kept.fill(rows, len(rows), lambda: True):
            pass
        self._built = replace(built, features=kept)

    # -- where in the step we are ----------------------------------------------------------------------------------
    def _enter(self, segment: str, category: int) -> None:
        if not self._ledger.recording:
            return
        self._ledger.segment = f"{self._micro}.{segment}"
        self._ledger.category = category
        self._ledger.mark(self._ledger.segment + "|")

    def _watch(self) -> None:
        for number, layer in enumerate(self._layers):
            layer.register_forward_pre_hook(lambda *_, number=number: self._forward(f"forward {number}"))
            layer.register_forward_hook(lambda _m, _i, out, number=number: self._after(number, out))
        for weight in self._built.trainable:
            weight.register_post_accumulate_grad_hook(lambda weight: self._ledger.recategorise(weight.grad, GRADIENTS))
        for tensor in [*self._built.model.parameters(), *self._built.model.buffers()]:
            self._ledger.recategorise(tensor, WEIGHTS)

    def _forward(self, segment: str) -> None:
        if not self._in_backward:
            self._enter(segment, ACTIVATIONS)

    def _after(self, number: int, out: Any) -> None:
        if self._in_backward:
            return
        hidden = out[0] if isinstance(out, tuple) else out
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda grad, number=number: self._enter(f"backward {number}", ACTIVATIONS))
        if number == self._depth - 1:
            self._enter("loss", LOGITS)

    def _bytes_of(self, layer: nn.Module) -> tuple[int, ...]:
        """What a layer keeps between updates: weights, gradients where kept, state."""
        found = [0] * len(CATEGORIES)
        state = self._built.optimizer.state
        for weight in {id(w): w for w in [*layer.parameters(), *layer.buffers()]}.values():
            found[WEIGHTS] += weight.untyped_storage().nbytes()
            if weight.requires_grad:
                found[GRADIENTS] += weight.numel() * weight.element_size()
            found[OPTIMIZER] += sum(
                value.untyped_storage().nbytes()
                for value in state.get(weight, {}).values()
                if isinstance(value, torch.Tensor)
            )
            found[WEIGHTS] += sum(scale.untyped_storage().nbytes() for scale in quantization(weight))
        return tuple(found)


def _before_the_first_update(labels: list[str], kept: int) -> tuple[list[int], tuple[int, int]]:
    """Of the first `kept` events, in which a frozen body's states are kept, those that occur for any number of rows:
    states are kept one by one, so of those the last moment is the highest. The optimizer has no state yet."""
    body = [event for event, label in enumerate(labels[:kept]) if ".loss" not in label] + [kept - 1]
    return [*body, *range(kept, len(labels))], (OPTIMIZER, len(body))


def _elements(weight: nn.Parameter) -> int:
    """Weights of a parameter; of one packed in 4 bits those it stands for."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def _layers(model: nn.Module, depth: int) -> list[nn.Module]:
    """The decoder's (or encoder's) blocks: the first list of modules that is as long as the model is deep."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    return []


@contextmanager
def _backward_named(tracer: Tracer, ledger: Ledger) -> Iterator[None]:
    """While this is on, the ledger knows when a backward pass begins and ends, and when the update does."""
    backward, leave = torch.Tensor.backward, torch.autocast.__exit__

    def left(self: torch.autocast, *args: Any) -> Any:
        answer = leave(self, *args)
        if ledger.segment.endswith(".loss"):  # the 16-bit copies of weights that nothing else holds are gone now
            tracer._enter("loss value", LOGITS)
        return answer

    def named(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        tracer._in_backward = True
        tracer._enter("backward loss", LOGITS)
        backward(self, *args, **kwargs)
        tracer._in_backward = False
        tracer._micro += 1
        tracer._enter("start" if tracer._micro < 2 else "update", ACTIVATIONS if tracer._micro < 2 else WORKSPACE)

    torch.Tensor.backward, torch.autocast.__exit__ = named, left  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.backward, torch.autocast.__exit__ = backward, leave  # type: ignore[method-assign]


@contextmanager
def _without_weights(config: dict[str, Any]) -> Iterator[str]:
    """While this is on, `training.build` makes models from a config alone; gives the folder to name."""
    load = build_room.load_base

    def from_config(
        folder: str, *, labels: Any, attention: str, dtype: torch.dtype, pad_id: int, options: Any = None
    ) -> nn.Module:
        import transformers

        more = {"num_labels": len(labels)} if labels is not None else {}
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **more)
        kind = transformers.AutoModelForCausalLM if labels is None else transformers.AutoModelForSequenceClassification
        model = kind.from_config(found, attn_implementation=attention, dtype=dtype)
        if options and "quantization_config" in options:
            _pack(model, options["quantization_config"])
        if getattr(model.config, "pad_token_id", None) is None:
            model.config.pad_token_id = pad_id
        return model

    build_room.load_base = from_config  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            yield folder
    finally:
        build_room.load_base = load


def _pack(model: Any, way: Any) -> None:
    """Put the linear layers in 4 bits, as `from_pretrained` does with a quantization config."""
    import bitsandbytes
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    replace_with_bnb_linear(model, modules_to_not_convert=way.llm_int8_skip_modules, quantization_config=way)
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
    model.config.quantization_config = way
    model.quantization_method, model.is_loaded_in_4bit = way.quantization_method(), True


def _halved(shape: Shape) -> Shape:
    """A packed row of two, told apart in attention as any number of them would be."""
    return replace(shape, rows=2, length=shape.length // 2)


def _rows(shape: Shape, *, classes: bool) -> list[Encoded]:
    """Rows of this shape: label tokens at the end of each, as even as they go."""
    rows = []
    left = shape.labels
    for number in range(shape.rows):
        length = shape.length - (1 if shape.padded and number else 0)
        count = min(length - 1, -(-left // (shape.rows - number)))
        left -= count
        trained = [False] * (length - count) + [True] * count
        rows.append(Encoded(ids=[5] * length, trained=trained, label=0 if classes else None, cut=False))
    return rows


def _course(settings: Settings, rows: int) -> loop_room.Course:
    return loop_room.Course(
        total_steps=10,
        micro_batch_size=rows,
        effective_batch=2 * rows,
        seed=0,
        by_length=False,
        packing=bool(settings.data.packing),
        reduction=settings.loss_reduction,
        learning_rate=1e-4,
        schedule="constant",
        warmup_steps=0,
        min_lr_ratio=0.0,
        max_grad_norm=settings.optimizer.max_grad_norm,
    )
