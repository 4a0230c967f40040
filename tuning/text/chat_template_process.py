"""Chat templates in child processes, which end where a template takes too long or too much memory.

The child runs the functions of `ChatTemplates` and `conversations`. A template is a program that a model folder brings:
its sandbox keeps it from files, but not from looping without end. A template that has exceeded a limit is refused from
then on, for it would exceed it at every row.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.core.child_process import Child, extend_deadline, serve
from tuning.core.errors import DataError
from tuning.text.chat_templates import ChatTemplates, ConversationError
from tuning.text.conversations import RenderedRow, Span, omissions, render_row
from tuning.text.rows import Row, Turn, characters

SECONDS = 5.0
"""How long a template may take to write one conversation once; usual ones take less than a millisecond."""
MEMORY_BYTES = 1 << 30
"""The address space of a child, of which Python and its libraries take 40 MiB."""
MOST_CHARACTERS = 32_000_000
"""The longest conversation that a template may write."""
REQUEST_CHARACTERS = 200_000
"""Characters of the rows that one question to a child holds."""
_PROCESSES = 4
_idle: queue.LifoQueue[Child] = queue.LifoQueue()
for _ in range(_PROCESSES):
    _idle.put(Child("tuning.text.chat_template_process", SECONDS))
_exceeded = dict[tuple[str, ...], str]()
"""Templates that have exceeded a limit, with the limit in words."""


def render_chat(
    chat: ChatTemplates, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[Any] | None = None
) -> str:
    """The conversation as its template writes it. Raises ConversationError, or DataError where it has no template or
    one that exceeds a limit."""
    chat.template_for(tools)
    arguments = {"messages": messages, "add_generation_prompt": add_generation_prompt, "tools": tools}
    return str(_ask(chat, "render", **arguments))


def render_rows(
    chat: ChatTemplates, rows: Sequence[Row], loss_on: str, system_prompt: str | None
) -> list[RenderedRow | ConversationError]:
    """`conversations.render_row` for each row, or the ConversationError that it raised.

    Raises DataError where the template exceeds a limit, or there is none.
    """
    results = list[RenderedRow | ConversationError]()
    for request in _requests(rows):
        for row in request:
            chat.template_for(row.tools)
        plain = list(map(_to_json, request))
        for answer in _ask(chat, "render_rows", rows=plain, loss_on=loss_on, system_prompt=system_prompt):
            if "refused" in answer:
                results.append(ConversationError(answer["refused"], "messages"))
            else:
                learned = tuple(Span(*characters) for characters in answer["learned"])
                results.append(RenderedRow(answer["text"], learned, answer["marked"]))
    return results


def template_omissions(chat: ChatTemplates, row: Row, system_prompt: str | None) -> Counter[str]:
    """`conversations.omissions` for a row. Raises ConversationError where the template refuses the row, and DataError
    where it exceeds a limit, or there is none."""
    chat.template_for(row.tools)
    return Counter(_ask(chat, "omissions", row=_to_json(row), system_prompt=system_prompt))


def _requests(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups of at least `REQUEST_CHARACTERS` characters, the last one excepted."""
    groups, length = [list[Row]()], 0
    for row in rows:
        if length >= REQUEST_CHARACTERS:
            groups.append([])
            length = 0
        groups[-1].append(row)
        length += characters(row)
    return [group for group in groups if group]


def _ask(chat: ChatTemplates, function: str, **arguments: Any) -> Any:
    """The result of a function of the child (`_FUNCTIONS`). Raises ConversationError or DataError."""
    templates = tuple(chat.templates.values())
    if templates not in _exceeded:
        child = _idle.get()
        try:
            templates_json = {"templates": dict(chat.templates), "specials": dict(chat.specials)}
            answer = child.ask({"function": function} | templates_json | arguments)
        finally:
            _idle.put(child)
        if answer is None:
            answer = {"limit": f"it ended the process that runs it, or did not end within {SECONDS:g} s"}
        if "refused" in answer:
            raise ConversationError(answer["refused"], "messages")
        if "unusable" in answer:
            raise DataError(answer["unusable"], "messages")
        if "error" in answer:  # what no template can do
            raise RuntimeError(answer["error"])
        if "limit" not in answer:
            return answer["result"]
        _exceeded[templates] = answer["limit"]
    message = f"the model's chat template cannot be used: {_exceeded[templates]}; choose another model"
    raise DataError(message, "chat_template", "a template that writes a conversation at once", "model")


def _to_json(row: Row) -> dict[str, Any]:
    """A row's conversation as JSON."""
    turns = [[turn.role, turn.content, turn.learned, turn.extra] for turn in row.messages or ()]
    return {"turns": turns, "system": row.system, "tools": row.tools}


# -- in the child -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _LimitedTemplates(ChatTemplates):
    """Chat templates with a time limit for each rendering, and a limit on what it may write."""

    def render_chat(self, *args: Any, **kwargs: Any) -> str:
        extend_deadline()
        text = ChatTemplates.render_chat(self, *args, **kwargs)
        if len(text) > MOST_CHARACTERS:
            raise MemoryError
        return text


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    """The result of the function that the question names, why the conversation is refused, or the limit exceeded."""
    function = question.pop("function")
    chat = _LimitedTemplates(question.pop("templates"), question.pop("specials"))
    try:
        return {"result": _FUNCTIONS[function](chat, **question)}
    except ConversationError as error:
        return {"refused": str(error)}
    except DataError as error:
        return {"unusable": str(error)}
    except MemoryError:
        return {
            "limit": f"it wants more than {MEMORY_BYTES >> 20:,} MiB, or {MOST_CHARACTERS:,} characters, for one row"
        }


def _render_rows(chat: ChatTemplates, rows: list[Any], loss_on: str, system_prompt: str | None) -> list[dict[str, Any]]:
    """`render_row` for each row as JSON, or why the row is refused."""
    results = list[dict[str, Any]]()
    for plain in rows:
        try:
            rendered = render_row(_from_json(plain), chat, loss_on, system_prompt)
        except ConversationError as error:
            results.append({"refused": str(error)})
        else:
            learned = [[span.start, span.stop, span.turn_stop] for span in rendered.learned]
            results.append({"text": rendered.text, "learned": learned, "marked": rendered.marked})
    return results


def _from_json(plain: dict[str, Any]) -> Row:
    return Row(messages=tuple(Turn(*turn) for turn in plain["turns"]), system=plain["system"], tools=plain["tools"])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "render": lambda chat, **question: chat.render_chat(**question),
    "render_rows": _render_rows,
    "omissions": lambda chat, row, system_prompt: omissions(_from_json(row), chat, system_prompt),
}


if __name__ == "__main__":
    serve(_answer, MEMORY_BYTES)
