"""The settings as a Markdown table, from the same schema as the form and the sentences of refusals.

`assets/docs/settings.md` holds this table; a test keeps the two equal.
"""

from __future__ import annotations

import json

from tuning.core.fields import Field, fields_of
from tuning.methods import METHODS
from tuning.methods.recipes import RECIPES
from tuning.settings.schema import all_fields


def settings_table() -> str:
    """One line a setting: path, default, limit, help."""
    lines = ["| setting | default | accepts | what it does |", "|---|---|---|---|"]
    plain = {path: field for path, field in all_fields().items() if not path.startswith("method.")}
    lines += [_line(field) for field in plain.values()]
    for method in METHODS:
        fields = fields_of(method.settings, "method.")
        lines += [_line(field, f" ({method.name})") for field in fields.values() if field.path != "method.name"]
    for recipe in RECIPES:
        fields = fields_of(recipe.settings, "recipe.")
        lines += [_line(field, f" ({recipe.name})") for field in fields.values() if field.path != "recipe.name"]
    return "\n".join(lines)


def _line(field: Field, of: str = "") -> str:
    """A row of the table; `of` names the method or recipe that has the setting."""
    shown = json.dumps(field.default)
    return f"| `{field.path}`{of} | `{shown}` | {field.limit} | {field.help.replace('|', 'or')} |"
