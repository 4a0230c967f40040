"""Conversations through the model's chat template, and which characters of them are learned.

The text is exactly as the template writes it. A template is a program, so the stretches that an assistant says are
found by rendering the conversation turn by turn: what is added behind the question that the model is asked is what it
says. Templates that rewrite earlier turns as a conversation goes on (thinking taken out, a system prompt moved) are
rendered with marks in the place of an answer too. Where no rendering agrees the conversation is refused, never guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.text.chat_templates import REASONING, ChatTemplates, ConversationError
from tuning.text.rows import Row, Turn

MARK = "\ue0f2answer\ue0f3"
"""Put in an answer's place to see where the template writes it; private characters that no text of a person has."""
CALLS = ("tool_calls", "function_call")
"""Keys of a message that say something without content."""
PART_OF = "a part of "
"""Before a role: turns whose text is not there as it stands."""
THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Said:
    """A stretch of a written conversation, from one character to another."""

    start: int
    stop: int
    """Where what is said ends; the end of its turn stands right behind it."""
    turn_stop: int | None = None
    """Where the turn ends, the end and what is written behind it included; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation as its template writes it."""

    text: str
    learned: tuple[Said, ...]
    """What is learned, in order; with loss_on `all` what is not."""
    marked: bool
    """Whether the template itself marks what the assistant says, so that the stretches are whole as they are."""


def messages_of(row: Row, system_prompt: str | None) -> tuple[list[dict[str, Any]], list[Turn], list[Any] | None]:
    """The row's messages as a template takes them, its turns in the same order, and its tools."""
    turns = list(row.messages or ())
    head = row.system or system_prompt
    if head and (not turns or turns[0].role not in ("system", "developer")):
        turns.insert(0, Turn("system", head))
    return [turn.message() for turn in turns], turns, json.loads(row.tools) if row.tools else None


def write(row: Row, templates: ChatTemplates, loss_on: str, system_prompt: str | None) -> Written:
    """The row's conversation; raises ConversationError where its answers cannot be told apart."""
    messages, turns, tools = messages_of(row, system_prompt)
    talk = _Talk(messages, tools, templates)
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if loss_on == "all":
        silent = [place for place, turn in enumerate(turns) if not turn.learned]
        return Written(talk.whole, tuple(talk.find(place) for place in silent), False)
    asked = answers[-1:] if loss_on == "last_turn" else answers
    wanted = [place for place in asked if turns[place].learned and says(messages[place])]
    wanted = [place for place in wanted if messages[place]["content"].strip() or talk.writes(place)]
    marked = templates.marked_answers(messages, tools)
    if marked is not None and marked[0] == talk.whole and len(marked[1]) == len(answers):
        places = dict(zip(answers, marked[1], strict=True))
        return Written(talk.whole, tuple(Said(*places[place]) for place in wanted), True)
    return Written(talk.whole, tuple(talk.find(place) for place in wanted), False)


def says(message: dict[str, Any]) -> bool:
    """Whether there is anything in this turn to learn."""
    return bool(message["content"].strip()) or any(message.get(key) for key in (*CALLS, *REASONING))


class _Talk:
    """One conversation, rendered in part and with marks as often as it takes to find its turns."""

    def __init__(self, messages: list[dict[str, Any]], tools: list[Any] | None, templates: ChatTemplates) -> None:
        self._messages, self._tools, self._templates = messages, tools, templates
        self._found: dict[int, Said] = {}
        self.whole = templates.render_chat(messages, False, tools)

    def find(self, place: int) -> Said:
        """Where the whole conversation has this turn. Raises ConversationError."""
        found = next(self._candidates(place), None)
        if found is None:
            message = "the chat template rewrites earlier turns, so answers cannot be told apart"
            raise ConversationError(message, "messages")
        self._found[place] = found
        return found

    def _candidates(self, place: int) -> Iterator[Said]:
        """Readings that agree with the whole conversation, the surest first."""
        whole = self.whole
        before = self._render(self._messages[:place], asked=self._is_answer(place))
        after = self._render(self._messages[: place + 1])
        start = len(before) if before is not None and whole.startswith(before) else None
        turn_stop = len(after) if after is not None and start is not None and whole.startswith(after) else None
        marked = self._around(place)
        if marked is not None:
            head, stop = marked[0].rstrip(" "), len(whole) - len(marked[1])  # a blank before an answer is its own
            if start is not None and len(head) >= start and self._holds(place, start, stop):
                yield Said(start, stop, None if turn_stop is None or turn_stop < stop else turn_stop)
            for begin in (self._behind_opening(place, head), len(head)):
                if begin is not None and whole.startswith(head[:begin]) and self._holds(place, begin, stop):
                    yield Said(begin, stop)
        if start is not None and turn_stop is not None and start <= turn_stop:
            yield Said(start, turn_stop, turn_stop)
        for said in self._as_last(place, before, after):
            yield from self._standing(place, said)

    def _behind_opening(self, place: int, head: str) -> int | None:
        """Where an answer begins behind what the model is given to begin it with, in the text before its content."""
        if not self._is_answer(place):
            return None
        asked, plain = self._render(self._messages[:place], asked=True), self._render(self._messages[:place])
        if asked is None or plain is None or not asked.startswith(plain) or len(asked) == len(plain):
            return None
        opening = asked[len(plain) :]
        at = head.rfind(opening)
        earlier = self._messages[place - 1]["content"].strip() if place else ""
        between = head[at + len(opening) :]
        return None if at < 0 or (earlier and earlier in between) else at + len(opening)

    def _is_answer(self, place: int) -> bool:
        return bool(self._messages[place]["role"] == "assistant")

    def _render(self, messages: Sequence[dict[str, Any]], asked: bool = False) -> str | None:
        """A part of the conversation; None where the template refuses it."""
        if not messages and not asked:
            return ""
        try:
            return self._templates.render_chat(list(messages), asked, self._tools)
        except ConversationError:
            return None

    def _around(self, place: int) -> tuple[str, str] | None:
        """What the template writes before and behind what the turn says: a mark in its content's place, and calls of
        tools left out. None where the mark is not written once."""
        message = {key: value for key, value in self._messages[place].items() if key not in CALLS}
        marked = [*self._messages[:place], {**message, "content": MARK}, *self._messages[place + 1 :]]
        written = self._render(marked)
        if written is None or written.count(MARK) != 1:
            return None
        head, _, tail = written.partition(MARK)
        return (head, tail) if self.whole.endswith(tail) else None

    def _holds(self, place: int, start: int, stop: int) -> bool:
        """Whether the answer, or what is left of it without its thinking, stands there."""
        content = self._messages[place]["content"]
        there = self.whole[start:stop]
        return start <= stop and (content.strip() in there or THOUGHT.sub("", content).strip() in there)

    def writes(self, place: int) -> bool:
        """Whether the template writes what the turn says besides its content."""
        message = {key: value for key, value in self._messages[place].items() if key not in (*CALLS, *REASONING)}
        bare = self._render([*self._messages[:place], message, *self._messages[place + 1 :]])
        return bare != self.whole

    def _as_last(self, place: int, before: str | None, after: str | None) -> Iterator[str]:
        """How the turn is written where the conversation ends with it: as it is, then without its thinking."""
        if before is not None and after is not None and after.startswith(before):
            yield after[len(before) :]
        message = {key: value for key, value in self._messages[place].items() if key not in REASONING}
        message["content"] = THOUGHT.sub("", message["content"]).lstrip("\n")
        bare = self._render([*self._messages[:place], message])
        if before is not None and bare is not None and bare.startswith(before):
            yield bare[len(before) :]

    def _standing(self, place: int, said: str) -> Iterator[Said]:
        """Where the whole has this text behind the turns that were found before; only where it has it once."""
        least = max((one.stop for number, one in self._found.items() if number < place), default=0)
        text = said.rstrip("\n") if said.rstrip("\n") else said
        if text.strip() and self.whole.count(text, least) == 1:
            start = self.whole.index(text, least)
            yield Said(start, start + len(text), start + len(text))


# -- what a template leaves out ---------------------------------------------------------------------------------------
def unwritten(row: Row, templates: ChatTemplates, system_prompt: str | None) -> Counter[str]:
    """What the row's conversation has and its template does not write: a message's key, `tools`, or PART_OF and a role,
    each with the number of turns. Raises ConversationError."""
    messages, turns, tools = messages_of(row, system_prompt)
    found = Counter[str]()
    whole = templates.render_chat(messages, False, tools)
    if tools and templates.render_chat(messages, False, None) == whole:
        found["tools"] += 1
    for key in sorted({key for message in messages for key in message} - {"role", "content"}):
        bare = [{name: value for name, value in message.items() if name != key} for message in messages]
        if templates.render_chat(bare, False, tools) == whole:
            found[key] += sum(bool(message.get(key)) for message in messages)
    for turn in turns:
        if turn.content.strip() and turn.content.strip() not in whole:
            found[f"{PART_OF}{turn.role}"] += 1
    return found


def as_conversation(row: Row, end: str = "") -> Row:
    """A prompt with its completion as the turns of a user and an assistant; earlier questions before them.

    Blanks before the completion (data.separator) join it to the prompt, and are not a part of the answer. `end` is
    taken off behind each answer once, for the template writes it (`TextTokenizer.written_end`).
    """
    turns = [
        turn for asked, said in row.history for turn in (Turn("user", asked), Turn("assistant", without_end(said, end)))
    ]
    answer = without_end(row.completion or "", end).lstrip()
    turns += [Turn("user", row.prompt or ""), Turn("assistant", answer)]
    return replace(row, prompt=None, completion=None, history=(), messages=tuple(turns))


def without_end(answer: str, end: str) -> str:
    """The answer without the end token's text that stands behind it, and the blanks behind that."""
    bare = answer.rstrip()
    return bare.removesuffix(end) if end and bare.endswith(end) else answer
