"""What a fine-tuning method is: its settings, its arithmetic (no torch), and the hooks by which it changes a run:
loading, modules, features, optimizer, prompts.

A new method is one file with one `Method` and one line in the tuple of `tuning.methods`; it overrides the hooks it
needs and takes the rest as they are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tuning.core.errors import Problem, RunError
from tuning.core.fields import SettingsBlock
from tuning.methods.network import FROZEN, Part, chosen_linears, linears, target_pattern, unknown_targets
from tuning.models.base_model import ModelShape, shape_from_config
from tuning.models.families import HEADS
from tuning.text import Row

BOTH_TASKS = ("causal_lm", "sequence_classification")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInputs:
    """What a method may look at when it says what it refuses: the run that it is asked for, opened."""

    shape: ModelShape
    task: str
    class_count: int
    device: str
    """cpu or cuda."""
    device_name: str
    dtypes: tuple[str, ...]
    optimizer: str
    max_grad_norm: float | None
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    max_seq_length: int
    label_tokens: int
    """Label tokens of all training rows, or the rows themselves for classes."""
    train: Sequence[Row] = ()
    """Training rows, read from disk one by one; empty for a method that makes updates."""
    eval: Sequence[Row] = ()
    """Evaluation rows; empty for a method that makes updates."""
    data_folder: Path | None = None
    """The folder of a bundled data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInputs:
    """What a method without updates is given to write its prompts with."""

    train: Sequence[Row]
    eval: Sequence[Row]
    answer: Callable[[Sequence[str]], Sequence[tuple[str, float]]]
    """The base model's own answer to each prompt, and how sure it is: the chance it gives the whole answer, 0 to 1."""
    data_folder: Path | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingCode:
    """What the model card's Python says besides, where plain `peft` loads an adapter: names to import from
    transformers, lines before the base model is loaded, further arguments of that, lines behind it."""

    imports: tuple[str, ...] = ()
    before: str = ""
    arguments: str = ""
    after: str = ""


class MethodSettings(SettingsBlock):
    """The settings of one method, each with its help in the string under it."""

    name: str
    """The method's word in settings."""


S = TypeVar("S", bound=MethodSettings)


class Method(Generic[S]):
    """One way to fine-tune, with settings of its own kind `S`.

    In its hooks `class_count` is the number of classes of a classifier, 0 for a language model.
    """

    name: str
    """The word used in settings, store and charts."""
    title: str
    card: str
    """One paragraph for people: what it does, what it is good for, what it costs."""
    source: str
    settings: type[S]
    """The block of the method's own settings, each with its help."""
    default_learning_rate: float
    learning_rate_reason: str
    artifact = "adapter"
    """The folder a run's result is saved in: `adapter` (beside the base model) or `model` (whole)."""
    own_loader = False
    """Whether an adapter brings a load.py of its own, because plain `peft` does not know its kind."""
    tasks: tuple[str, ...] = BOTH_TASKS
    needs_known_layers = False
    """Whether it finds layers by the names a kind of model gives them, and so needs a kind whose names are known."""
    supports_packing = True
    """Whether the rows of a micro-batch can be joined into one; not where something stands before every row."""
    cheaper_methods: tuple[str, ...] = ()
    """Methods that take less memory, in the order in which they are offered where this one does not fit."""
    tradeoff = ""
    """What it costs to take this one to save memory, in words."""
    updates = True
    """False where nothing is trained: the method acts in the prompt instead (`prompts`)."""
    new_pooler = False
    """Whether a layer between body and head that is new, as the head is, is trained and saved; else it is refused."""
    merge_tolerance = 1e-3
    """How far logits of a merged model may lie from the unmerged ones: products are summed in another order."""
    shapes_adapter: tuple[str, ...] | None = None
    """The settings that a saved adapter must share with a run that trains it on; None where none can be trained on."""

    def summary(self, settings: S) -> str:
        """A few characters for tables, such as `LoRA r8`."""
        return self.title

    # -- torch-free arithmetic -------------------------------------------------------------------------------------
    def parameter_groups(self, shape: ModelShape, settings: S, class_count: int) -> list[Part]:
        """The network by layer: what is frozen, trained, added, with counts. All numbers below follow from it."""
        raise NotImplementedError

    def trainable_parameters(self, shape: ModelShape, settings: S, class_count: int) -> int:
        """Weights that move."""
        return sum(
            part.parameters for part in self.parameter_groups(shape, settings, class_count) if part.state != FROZEN
        )

    def total_parameters(self, shape: ModelShape, settings: S, class_count: int) -> int:
        """Weights of the model in training, frozen ones included."""
        return sum(part.parameters for part in self.parameter_groups(shape, settings, class_count))

    def weight_bytes(self, shape: ModelShape, settings: S, class_count: int) -> int:
        """Bytes of all weights in training; 32-bit unless the method stores them smaller."""
        return 4 * self.total_parameters(shape, settings, class_count)

    def optimizer_values(self, shape: ModelShape, settings: S, class_count: int, per_weight: int) -> int:
        """Numbers the optimizer keeps, where it usually keeps `per_weight` for each trained weight."""
        return per_weight * self.trainable_parameters(shape, settings, class_count)

    # -- what it refuses -------------------------------------------------------------------------------------------
    def problems(self, inputs: MethodInputs, settings: S) -> list[Problem]:
        """What these settings ask that cannot be done here, each with its fix."""
        return []

    # -- settings resolved for a device ----------------------------------------------------------------------------
    def resolve_auto(self, settings: S, device: str) -> S:
        """The settings with what `auto` means on this kind of device, `cpu` or `cuda`."""
        return settings

    def fallback_dtype(self, settings: S, dtypes: tuple[str, ...]) -> S:
        """The settings for a device that computes in these number types, where `auto` takes another."""
        return settings

    # -- hook 1, at load -------------------------------------------------------------------------------------------
    def load_options(self, settings: S, device: str) -> dict[str, Any]:
        """Further arguments of `from_pretrained`; 4-bit weights for example."""
        return {}

    # -- hook 2, on the modules ------------------------------------------------------------------------------------
    def apply(self, model: Any, settings: S, task: str) -> Any:
        """The model ready to train: only the intended weights have requires_grad. Torch's generator is the run's."""
        raise NotImplementedError

    def own_head(self, settings: S) -> bool:
        """Whether a classifier gets a head of the method's own in place of the model's."""
        return False

    # -- hook 3, on the data path ----------------------------------------------------------------------------------
    def caches_features(self, settings: S) -> bool:
        """Whether everything before the output layer is frozen, so that a row's features can be computed once."""
        return False

    # -- hook 4, in the optimizer ----------------------------------------------------------------------------------
    def optimizer(self, model: Any, settings: S, chosen: Any, learning_rate: float) -> Any | None:
        """An optimizer of the method's own from the run's OptimizerSettings; None takes the usual one."""
        return None

    def steps_in_backward(self, settings: S) -> bool:
        """Whether weights are updated while gradients are made, so that an update has no step of its own."""
        return False

    # -- hook 5, prompts instead of updates ------------------------------------------------------------------------
    def prompts(self, inputs: PromptInputs, settings: S) -> list[Row]:
        """The evaluation rows with their prompts written the method's way; answers stay as they are."""
        raise NotImplementedError

    def longest_prompts(self, inputs: MethodInputs, settings: S) -> list[Row]:
        """Those evaluation rows as `prompts` would write them that may become longest, at least one: whether they fit
        is looked at before the run. Called only where `problems` finds none."""
        raise NotImplementedError

    def prompt_length_setting(self, settings: S) -> tuple[str, Any, str]:
        """The setting that makes prompts long, its value, and in words what makes them shorter."""
        raise NotImplementedError

    def queries_base_model(self, settings: S) -> bool:
        """Whether `prompts` lets the base model answer first (`PromptInputs.answer`)."""
        return False

    def with_shorter_prompts(self, settings: S) -> tuple[S, str] | None:
        """Other settings whose prompts are shorter, and in words what that costs; None where none can be."""
        return None

    # -- what comes out --------------------------------------------------------------------------------------------
    def save(self, model: Any, folder: Path) -> None:
        """Write the trained weights as safetensors that plain `peft` or `transformers` load, or with load.py beside."""
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path) -> Any:
        """The trained model from the base model and a saved folder."""
        raise NotImplementedError

    def loading_code(self, settings: S, device: str) -> LoadingCode:
        """What it takes to load the base model as it was trained; 4-bit weights for example."""
        return LoadingCode()

    def merge(self, model: Any) -> Any | None:
        """The trained model as one that plain `transformers` saves and loads; None where there is no such form."""
        return None

    def merged_shape(self, shape: ModelShape, settings: S, class_count: int) -> ModelShape | None:
        """The shape of what `merge` gives, from the base model's; None where there is no such form."""
        return None

    def train_on(self, model: Any, folder: Path) -> None:
        """Put a saved adapter's weights into a model that `apply` has made ready with settings of the same shape."""
        raise NotImplementedError

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        """Within it the model answers as the untouched base; None where the base is gone."""
        return None


class PeftMethod(Method[S]):
    """What all methods of the PEFT library share."""

    cheaper_methods: tuple[str, ...] = ("qlora",)

    def load(self, model: Any, folder: Path) -> Any:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, folder, local_files_only=True)

    def train_on(self, model: Any, folder: Path) -> None:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        result: Any = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        foreign = [name for name in result.unexpected_keys if name != "prompt_embeddings"]  # peft loads those apart
        if foreign:
            raise RunError(f"The adapter to train on has weights that this run does not: {', '.join(foreign[:3])}.")

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        disabled: AbstractContextManager[Any] = model.disable_adapter()
        return disabled


class WholeModelMethod(Method[S]):
    """What all methods share whose result is a whole model that plain `transformers` loads."""

    artifact = "model"
    cheaper_methods: tuple[str, ...] = ("lora", "qlora")

    def load(self, model: Any, folder: Path) -> Any:
        return type(model).from_pretrained(folder, local_files_only=True, use_safetensors=True)

    def merge(self, model: Any) -> Any | None:
        return model

    def merged_shape(self, shape: ModelShape, settings: S, class_count: int) -> ModelShape | None:
        return shape


def freeze(model: Any) -> None:
    """Nothing moves; a method then says what does."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def new_heads(model: Any) -> Iterator[Any]:
    """The modules of a fresh classification head, which every method trains; none in a language model."""
    for name in HEADS:
        head = getattr(model, name, None)
        if head is not None:
            yield head


def unnamed_heads(model: Any, task: str) -> list[str] | None:
    """Modules of a fresh classification head that PEFT does not train and save by itself, which knows two names."""
    names = [name for name in HEADS if name not in ("score", "classifier") and getattr(model, name, None) is not None]
    return names if names and task == "sequence_classification" else None


def target_problems(shape: ModelShape, field: str, words: str) -> list[Problem]:
    """Targets that match nothing in this model."""
    unknown = unknown_targets(shape, words)
    if not unknown:
        return []
    names = ", ".join(sorted({linear.name for linear in linears(shape)}))
    message = f"{', '.join(unknown)} matches no linear layer of this model; use all-linear, or some of {names}"
    return [Problem(field, words, f"all-linear, attention, feed-forward, or of {names}", message)]


def words_pattern(model: Any, words: str) -> str:
    """The modules of a loaded model that these words mean, as a pattern for whole module names."""
    shape = shape_from_config(model.config.to_dict())
    return target_pattern(shape, chosen_linears(shape, words))
