"""P-tuning: prompt tuning whose virtual tokens come out of a small network that is trained with them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, PeftMethod
from tuning.methods.network import ADDED, EMBEDDINGS, Part, model_parts
from tuning.methods.prompt_tuning import Init, attention_heads, prompt_problems, start_vectors, with_start
from tuning.models.base_model import ModelShape


class PTuningSettings(MethodSettings):
    name: str = "p_tuning"
    virtual_tokens: Annotated[int, Field(ge=1, le=4096), WHOLE] = 16
    """How many vectors stand before each text. More say more, and each lengthens every row by one place."""
    init: Init = "vocabulary"
    """What goes into the small network at first: vectors of random words, of init_text's words, or noise."""
    init_text: Text = "Answer the question."
    """For init text: these words, repeated until all virtual tokens have one."""


class PTuning(PeftMethod[PTuningSettings]):
    name = "p_tuning"
    title = "P-tuning"
    card = (
        "Prompt tuning with a small network between the learned vectors and the model, which ties them together and "
        "makes them easier to train. More trained weights than prompt tuning; only the finished vectors are saved."
    )
    source = "Liu et al. 2021, arXiv 2103.10385"
    settings = PTuningSettings
    default_learning_rate = 3e-3
    learning_rate_reason = "the small network amplifies steps, so it needs a tenth of prompt tuning's rate"
    supports_packing = False
    tasks = ("causal_lm",)

    def parameter_groups(self, shape: ModelShape, settings: PTuningSettings, class_count: int) -> list[Part]:
        hidden = shape.hidden_size
        added = [
            Part(
                layer=EMBEDDINGS,
                name=f"{settings.virtual_tokens} virtual tokens",
                state=ADDED,
                parameters=settings.virtual_tokens * hidden,
            ),
            Part(
                layer=EMBEDDINGS,
                name="network before them, three layers",
                state=ADDED,
                parameters=3 * hidden * (hidden + 1),
            ),
        ]
        return [*model_parts(shape, class_count), *added]

    def problems(self, inputs: MethodInputs, settings: PTuningSettings) -> list[Problem]:
        return prompt_problems(inputs, settings)

    def summary(self, settings: PTuningSettings) -> str:
        return f"{self.title} {settings.virtual_tokens}"

    def apply(self, model: Any, settings: PTuningSettings, task: str) -> Any:
        from peft import PromptEncoderConfig, TaskType, get_peft_model

        start = start_vectors(model, settings)
        config = PromptEncoderConfig(
            num_virtual_tokens=settings.virtual_tokens,
            num_attention_heads=attention_heads(model),
            encoder_hidden_size=model.config.hidden_size,
            task_type=TaskType.CAUSAL_LM,
        )
        return with_start(get_peft_model(model, config), start)


METHOD = PTuning()
