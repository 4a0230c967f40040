"""Base models: where they are, what shape they have, what is known of their families, whether weights are whole."""

from tuning.models.base_model import resolve_model

__all__ = ["resolve_model"]  # the Python of a model card imports it from here: cards that were written stay true
