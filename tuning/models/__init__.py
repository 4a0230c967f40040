"""Base models: where they are, their shapes and families, and whether their weights are complete."""

from tuning.models.base_model import resolve_model

__all__ = ["resolve_model"]  # the Python of a model card imports it from here: cards that were written stay true
