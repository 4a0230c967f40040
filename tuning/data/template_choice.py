"""Whether prompts with completions are written through the model's chat template.

This decides `chat_template: auto` and what is reported of it. Conversations always go through the template; here it is
about pairs.
"""

from __future__ import annotations

from typing import Any

from tuning.core.errors import DataError, Notice
from tuning.models.base_model import BaseModel, descriptive_name, tuning_of
from tuning.settings.schema import DataSettings

FIELD = "data.chat_template"


def with_template_chosen(settings: DataSettings, model: BaseModel, recipe: dict[str, Any] | None) -> DataSettings:
    """The settings with `auto` decided. Raises DataError where `on` cannot be."""
    choice = settings.chat_template
    if choice == "on" and not model.chat_template:
        message = "the model has no chat template; set it to auto or off, or take a model that has one"
        raise DataError(message, choice, "auto or off", FIELD)
    if choice == "on" and recipe is not None:
        message = "a recipe asks its questions as plain texts; set it to auto or off"
        raise DataError(message, choice, "auto or off", FIELD)
    chat = choice == "on" or (choice == "auto" and recipe is None and _tuning(model) == "chat")
    return settings.replace(chat_template="on" if chat else "off")


def template_notices(
    settings: DataSettings, model: BaseModel, recipe: dict[str, Any] | None, *, pairs: bool
) -> tuple[Notice, ...]:
    """Notices about the choice, where the rows are prompts with completions."""
    if not pairs or not model.chat_template:
        return ()
    if with_template_chosen(settings, model, recipe).chat_template == "on":
        return (Notice(field=FIELD, message="prompts and answers are written through the model's chat template"),)
    if settings.chat_template == "off" or _tuning(model) == "base":
        return ()
    why = "a recipe asks its questions so" if recipe else "the model's name does not say that it is tuned for chats"
    message = f"prompts are written as plain texts, not through the model's chat template: {why}"
    return (Notice(field=FIELD, message=message if recipe else f"{message}; on writes them through it"),)


def _tuning(model: BaseModel) -> str:
    """`chat`, `base` or `unclear`; a run's result is what its own base model was, whatever the run was called."""
    while model.parent is not None:
        model = model.parent
    return tuning_of(descriptive_name(model.title, model.source), model.chat_template)[0]
