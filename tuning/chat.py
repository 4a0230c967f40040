"""Chat templates, as tokenizers carry them: Jinja in a sandbox, with what such templates expect to find.

Comes in: a template, messages, the special tokens' text.  Goes out: the conversation as one string.  No torch and no
transformers: the dialect is small (https://huggingface.co/docs/transformers/chat_templating).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ChatTemplateError(ValueError):
    """The template cannot be read, or refuses the conversation."""


class _Generation(Extension):
    """`{% generation %}` marks an assistant's words for mask making; here its body is simply written."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(
    template: str,
    messages: list[dict[str, str]],
    specials: dict[str, str],
    add_generation_prompt: bool,
    now: Callable[[], datetime] = datetime.now,
) -> str:
    """The conversation as the template writes it. Raises ChatTemplateError."""
    try:
        return _compiled(template).render(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            strftime_now=lambda form: now().strftime(form),
            **specials,
        )
    except (
        TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ChatTemplateError(str(error)) from None


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    """Compiled once: a data set renders its template for every turn."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _refuse(message: Any) -> None:
    raise TemplateError(str(message))
