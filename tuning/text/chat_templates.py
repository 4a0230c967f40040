"""Chat templates, as tokenizers carry them: Jinja in a sandbox, with what such templates expect to find.

A conversation becomes one string, with the character ranges that the template marks as the assistant's words. A
template may loop without end or want all the memory, which a sandbox does not prevent: `chat_template_process` runs it
in a process that can be ended. The dialect is that of transformers
(https://huggingface.co/docs/transformers/chat_templating), whose own rendering is not used because importing it takes
seconds, and because it stores the marks of a rendering in one object that two threads would share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tuning.core.errors import DataError

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys under which rows and templates have what an assistant thought before it answered."""
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_BEGIN, _END = "\ue0f0generation\ue0f1", "\ue0f1generation\ue0f0"
"""Around the assistant's words while they are written; private characters that no text of a person has."""


class ChatTemplateError(ValueError):
    """The template cannot be read, or refuses the conversation."""


class ConversationError(DataError):
    """One conversation that the chat template does not write, though it writes others."""


@dataclass(frozen=True, slots=True)
class ChatTemplates:
    """The chat templates of a tokenizer, and the special tokens that they write."""

    templates: Mapping[str, str]
    """Templates by name; a single one is named `default`."""
    specials: Mapping[str, str]
    """The text of each special token by its name."""

    def template_for(self, tools: Any) -> str:
        """The chat template for a conversation with or without tools. Raises DataError where there is none."""
        if not self.templates:
            message = "these rows are conversations, but the model's tokenizer has no chat template; use a chat model"
            raise DataError(message, "messages", "a tokenizer with a chat template")
        if tools is not None and "tool_use" in self.templates:
            return self.templates["tool_use"]
        if "default" not in self.templates:
            names = ", ".join(sorted(self.templates))
            message = f"the tokenizer has chat templates named {names}, and none named default; name one so"
            raise DataError(message, names, "a template named default")
        return self.templates["default"]

    def render_chat(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[Any] | None = None
    ) -> str:
        """The conversation as its template writes it. Raises ConversationError naming what failed, or MemoryError."""
        template = self.template_for(tools)
        try:
            return render(template, messages, self.specials, add_generation_prompt, tools)
        except ChatTemplateError as error:
            raise ConversationError(f"the chat template cannot write this conversation: {error}", "messages") from None

    def marked_answers(
        self, messages: list[dict[str, Any]], tools: list[Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]] | None:
        """The conversation, and the character ranges that its template marks as generated; None where it has no marks,
        or refuses the conversation."""
        try:
            return generated(self.template_for(tools), messages, self.specials, tools)
        except ChatTemplateError:
            return None


_marked: ContextVar[bool] = ContextVar("marked", default=False)


class _Generation(Extension):
    """`{% generation %}` marks an assistant's words for mask making."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_surrounded"), [], [], body).set_lineno(line)

    def _surrounded(self, caller: Callable[[], str]) -> str:
        return f"{_BEGIN}{caller()}{_END}" if _marked.get() else caller()


class _TemplateNamespace(Namespace):
    """Jinja's namespace that refuses names with an underscore first, as the one of transformers does."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"chat templates cannot store {name!r} on a namespace")
        super().__setitem__(name, value)


def render(
    template: str,
    messages: Iterable[Mapping[str, Any]],
    specials: Mapping[str, str],
    add_generation_prompt: bool,
    tools: list[Any] | None = None,
    now: Callable[[], datetime] = datetime.now,
) -> str:
    """The conversation as the template writes it. Raises MemoryError, or ChatTemplateError for any other failure."""
    try:
        return _compiled(template).render(
            messages=[_as_templates_read(message) for message in messages],
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            strftime_now=lambda pattern: now().strftime(pattern),
            **specials,
        )
    except MemoryError:
        raise
    except Exception as error:  # a template is a foreign program, and may fail in any way
        raise ChatTemplateError(str(error) or type(error).__name__) from None


def generated(
    template: str,
    messages: Iterable[Mapping[str, Any]],
    specials: Mapping[str, str],
    tools: list[Any] | None = None,
) -> tuple[str, list[tuple[int, int]]] | None:
    """The conversation, with the character ranges (start, stop) that the template marks as the assistant's.

    None where it marks nothing. Raises MemoryError, or ChatTemplateError for any other failure.
    """
    if not _MARKS.search(template):
        return None
    mark = _marked.set(True)
    try:
        text = render(template, messages, specials, False, tools)
    finally:
        _marked.reset(mark)
    return _without_marks(text)


def _as_templates_read(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without keys of null, and with its reasoning under each key by which templates read it."""
    members = {key: value for key, value in message.items() if value is not None}
    reasoning = next((members[key] for key in REASONING if key in members), None)
    return members if reasoning is None else {"thinking": reasoning, **members, "reasoning_content": reasoning}


def _without_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the marks, and the character ranges that stood between two of them."""
    before, *marked = text.split(_BEGIN)
    parts, ranges, length = [before], [], len(before)
    for part in marked:
        answer, _, rest = part.partition(_END)
        ranges.append((length, length + len(answer)))
        parts += [answer, rest]
        length += len(answer) + len(rest)
    return "".join(parts), ranges


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    """The compiled template, cached: a data set renders its template for every turn."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["namespace"] = _TemplateNamespace
    return environment.from_string(template)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """A value as JSON text. Jinja's own filter would write <, > and & as escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: Any) -> None:
    raise TemplateError(str(message))
