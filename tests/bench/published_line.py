"""One published figure beside the memory table of the same run, and what is added where other loops keep more.

What is added is arithmetic from the other's source code, written down with its reason in `ADDED`; nothing of it is
fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from bench.published_peaks import MODELS, Peak, Source
from tuning.memory.process_overhead import BANDS
from tuning.memory.tracing.table import Table
from tuning.memory.workload import Workload
from tuning.methods import method_named
from tuning.models.base_model import ModelShape, shape_from_config
from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.settings.schema import Settings

IN_THE_ROW = ("prompt_tuning", "p_tuning")
"""Methods whose virtual tokens go through the model as tokens of the row."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A published peak with the table of the same run. Lengths are tokens of the longest row."""

    source: Source
    peak: Peak
    workload: Workload
    memory: Table

    @cached_property
    def model(self) -> ModelShape:
        return shape_from_config(MODELS[self.peak.model])

    @property
    def front(self) -> int:
        """Virtual tokens before each row."""
        return self.peak.method.get("virtual_tokens", 0)

    def trained(self) -> int:
        """Weights that move, by the method's own arithmetic."""
        name = self.peak.method["name"]
        read = Settings.from_dict({"method": self.peak.method})
        return method_named(name).trainable_parameters(self.model, read.method, self.source.labels)

    def tokens(self, length: int) -> int:
        """Tokens of the micro-batch that go through the model."""
        return self.peak.rows * (length + (self.front if self.peak.method["name"] in IN_THE_ROW else 0))

    def at(self, length: int, labels: int) -> int:
        """The table's bytes at the peak, with so many labels."""
        shape = BatchShape(rows=self.peak.rows, length=length, label_tokens=labels, padded=self.source.padded)
        return self.memory.block(shape).total(
            PeakCandidate(shape=shape, accumulate=self.peak.accumulate), self.workload.rank
        )

    def ours(self, length: int) -> int:
        """Bytes at the peak of our loop; where text is learned, with a label at every position."""
        return self.at(length, self.peak.rows if self.source.labels else self.tokens(length))

    def added(self, length: int) -> int:
        """Bytes that their loop keeps and ours does not."""
        return sum(ADDED[name][1](self, length) for name in self.source.added)

    def expected(self, length: int) -> int:
        """What their meter is expected to show: all that is allocated, and the context where it is counted."""
        return self.ours(length) + self.added(length) + self.source.context

    def inside(self, length: int) -> bool:
        """Whether the figure lies in the band that the product puts around an estimate for a card."""
        band, context = BANDS["traced", "cuda"], self.source.context
        total = self.expected(length) - context
        return total * band.low - band.rest <= self.peak.bytes - context <= total * band.high + band.rest

    def between(self, length: int) -> int:
        """Bytes after an update: weights, gradients, the optimizer's state, and the output that is still held."""
        shape = BatchShape(rows=self.peak.rows, length=64, label_tokens=64, padded=self.source.padded)
        static = self.memory.block(shape).through_step(PeakCandidate(shape=shape, accumulate=True), self.workload.rank)[
            0
        ][1]
        return static + self.tokens(length) * self.model.vocab_size * 2 + _cache(self, length)


def _cache(line: Line, length: int) -> int:
    m, front = line.model, 0 if line.peak.method["name"] in IN_THE_ROW else line.front
    return (line.tokens(length) + line.peak.rows * front) * m.num_layers * 2 * m.num_kv_heads * m.head_dim * 2


def _softmax(line: Line, length: int) -> int:
    layers = 1 if line.peak.recompute else line.model.num_layers
    return layers * line.peak.rows * line.model.num_heads * length**2 * 4


def _litgpt_blocks(line: Line, length: int) -> int:
    """A dropped copy and its mask 2 + 1, the places of q and k in the joint tensor 4, LoRA's output before it is
    padded 4, two norms in 16 bits instead of 32 -4."""
    return line.tokens(length) * line.model.num_layers * line.model.hidden_size * (2 + 1 + 4 + 4 - 4)


def _litgpt_loss(line: Line, length: int) -> int:
    ours = line.ours(length) - line.at(length, 1)
    return line.tokens(length) * line.model.vocab_size * (2 + 2) - ours


def _litgpt_nf4(line: Line, length: int) -> int:
    if line.peak.method["name"] != "qlora":
        return 0
    m = line.model
    inputs = m.num_layers * (2 * m.hidden_size + m.intermediate_size) + m.hidden_size
    scales = 1 / 64 + 4 / (64 * 256) if line.peak.method["double_quant"] else 4 / 64
    return line.tokens(length) * inputs * 2 - round(m.vocab_size * m.hidden_size * (2 - 0.5 - scales))


ADDED: dict[str, tuple[str, Callable[[Line, int], int]]] = {
    "cache": ("keys and values of all layers in 16 bits, held by their output (use_cache is left on)", _cache),
    "softmax": ("the input of every softmax, kept by torch before 1.11 (pytorch issue 49600, PR 65242)", _softmax),
    "litgpt blocks": (
        "what LitGPT's blocks keep besides: LoRA's dropout, the joint q, k, v, the input of index_copy; "
        "less two norms in 16 bits",
        _litgpt_blocks,
    ),
    "litgpt loss": ("logits and log-softmax in 16 bits, in pieces, instead of ours in 32", _litgpt_loss),
    "litgpt nf4": (
        "inputs of 4-bit layers, which bitsandbytes 0.41 kept; less the output layer, 4-bit there",
        _litgpt_nf4,
    ),
}
