"""What a fine-tuning method is: its settings, its arithmetic (no torch), and the doors where it acts.

Comes in: a model's shape and the method's settings.  Goes out: counts, refusals, and, lazily, a changed model.
A new method is one file with one `Method` and one line in the tuple of `tuning.methods`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tuning.errors import Problem
from tuning.models import ModelShape


class Method(Protocol):
    """One way to fine-tune. The settings object `s` is an instance of `settings`."""

    name: str
    """The word used in settings, store and charts."""
    title: str
    card: str
    source: str

    @property
    def settings(self) -> type:
        """The dataclass of the method's own settings, each with its help."""

    default_learning_rate: float
    learning_rate_reason: str
    artifact: str
    """The folder a run's result is saved in: `adapter` or `model`."""

    def trainable_parameters(self, shape: ModelShape, s: Any, labels: int) -> int:
        """Weights that move; `labels` is the number of classes, 0 for a language model."""

    def added_parameters(self, shape: ModelShape, s: Any) -> int:
        """Weights the method puts beside the model's own."""

    def problems(self, shape: ModelShape, s: Any) -> list[Problem]:
        """What these settings ask that this model cannot do."""

    def summary(self, s: Any) -> str:
        """A few characters for tables, such as `LoRA r8`."""

    def apply(self, model: Any, s: Any, task: str) -> Any:
        """The model ready to train: only the intended weights have requires_grad."""

    def save(self, model: Any, folder: Path) -> None:
        """Write the trained weights as safetensors that plain `peft` or `transformers` load."""

    def load(self, model: Any, folder: Path) -> Any:
        """The trained model from the base model and a saved folder."""

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        """Within it the model answers as the untouched base; None where the base is gone."""


def classes_parameters(shape: ModelShape, labels: int) -> int:
    """Weights of a new classification head: `transformers` puts a bias on BERT's and none on decoders'."""
    return shape.hidden_size * labels + (labels if shape.model_type == "bert" else 0)
