"""Chat templates in child processes, which end where a template takes too long or too much memory.

The child does what `ChatTemplates` and `conversations` do. A template is a program that a model folder brings: its
sandbox bars it from files, and not from looping without end. One that went beyond a limit is refused from then on, for
it would at every row.
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
from tuning.text.conversations import Said, Written, unwritten, write
from tuning.text.rows import Row, Turn, characters

SECONDS = 5.0
"""How long a template may take to write one conversation once; usual ones take less than a millisecond."""
MEMORY_BYTES = 1 << 30
"""The address space of a child, of which Python and its libraries take 40 MiB."""
CHARACTERS = 32_000_000
"""The longest conversation that a template may write."""
AT_ONCE = 200_000
"""Characters of rows that are sent to a child together."""
_PROCESSES = 4
_idle: queue.LifoQueue[Child] = queue.LifoQueue()
for _ in range(_PROCESSES):
    _idle.put(Child("tuning.text.chat_template_process", SECONDS))
_beyond = dict[tuple[str, ...], str]()
"""Templates that went beyond a limit, and which."""


def render_chat(
    chat: ChatTemplates, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[Any] | None = None
) -> str:
    """The conversation as its template writes it. Raises ConversationError, or DataError where it has no template or
    one that goes beyond a limit."""
    chat.template_for(tools)
    asked = {"messages": messages, "add_generation_prompt": add_generation_prompt, "tools": tools}
    return str(_ask(chat, "render", **asked))


def write_rows(
    chat: ChatTemplates, rows: Sequence[Row], loss_on: str, system_prompt: str | None
) -> list[Written | ConversationError]:
    """`conversations.write` for each row, or what it raised. Raises DataError as `render_chat`."""
    found = list[Written | ConversationError]()
    for some in _portions(rows):
        for row in some:
            chat.template_for(row.tools)
        answers = _ask(chat, "write", rows=list(map(_plain, some)), loss_on=loss_on, system_prompt=system_prompt)
        for one in answers:
            if "refused" in one:
                found.append(ConversationError(one["refused"], "messages"))
            else:
                learned = tuple(Said(*places) for places in one["learned"])
                found.append(Written(one["text"], learned, one["marked"]))
    return found


def unwritten_of(chat: ChatTemplates, row: Row, system_prompt: str | None) -> Counter[str]:
    """`conversations.unwritten` for a row. Raises as `render_chat`."""
    chat.template_for(row.tools)
    return Counter(_ask(chat, "unwritten", row=_plain(row), system_prompt=system_prompt))


def _portions(rows: Sequence[Row]) -> list[list[Row]]:
    found, length = [list[Row]()], 0
    for row in rows:
        if length >= AT_ONCE:
            found.append([])
            length = 0
        found[-1].append(row)
        length += characters(row)
    return [some for some in found if some]


def _ask(chat: ChatTemplates, what: str, **question: Any) -> Any:
    templates = tuple(chat.templates.values())
    if templates not in _beyond:
        child = _idle.get()
        try:
            sent = {"templates": dict(chat.templates), "specials": dict(chat.specials)}
            answer = child.ask({"what": what} | sent | question)
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
            return answer["found"]
        _beyond[templates] = answer["limit"]
    message = f"the model's chat template cannot be used: {_beyond[templates]}; choose another model"
    raise DataError(message, "chat_template", "a template that writes a conversation at once", "model")


def _plain(row: Row) -> dict[str, Any]:
    """A row's conversation as JSON."""
    turns = [[turn.role, turn.content, turn.learned, turn.extra] for turn in row.messages or ()]
    return {"turns": turns, "system": row.system, "tools": row.tools}


# -- in the child -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Limited(ChatTemplates):
    """Templates with so much time for each rendering, and no more room than a conversation takes."""

    def render_chat(self, *given: Any, **more: Any) -> str:
        extend_deadline()
        text = ChatTemplates.render_chat(self, *given, **more)
        if len(text) > CHARACTERS:
            raise MemoryError
        return text


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, the words that a conversation was refused with, or the limit."""
    what = question.pop("what")
    chat = _Limited(question.pop("templates"), question.pop("specials"))
    try:
        return {"found": _ANSWERS[what](chat, **question)}
    except ConversationError as error:
        return {"refused": str(error)}
    except DataError as error:
        return {"unusable": str(error)}
    except MemoryError:
        return {"limit": f"it wants more than {MEMORY_BYTES >> 20:,} MiB, or {CHARACTERS:,} characters, for one row"}


def _written(chat: ChatTemplates, rows: list[Any], loss_on: str, system_prompt: str | None) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for row in rows:
        try:
            one = write(_row(row), chat, loss_on, system_prompt)
        except ConversationError as error:
            found.append({"refused": str(error)})
        else:
            learned = [[said.start, said.stop, said.turn_stop] for said in one.learned]
            found.append({"text": one.text, "learned": learned, "marked": one.marked})
    return found


def _row(plain: dict[str, Any]) -> Row:
    return Row(messages=tuple(Turn(*turn) for turn in plain["turns"]), system=plain["system"], tools=plain["tools"])


_ANSWERS: dict[str, Callable[..., Any]] = {
    "render": lambda chat, **question: chat.render_chat(**question),
    "write": _written,
    "unwritten": lambda chat, row, system_prompt: unwritten(_row(row), chat, system_prompt),
}


if __name__ == "__main__":
    serve(_answer, MEMORY_BYTES)
