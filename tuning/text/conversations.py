"""Conversations through the model's chat template, and which characters of them are learned.

The text is exactly as the template writes it. A template is a program, so the assistant's answers in it are found by
rendering the conversation turn by turn: what is added behind the question is the answer. Templates that rewrite earlier
turns as a conversation goes on (thinking taken out, a system prompt moved) are also rendered with a placeholder instead
of an answer. Where no rendering agrees with the whole, the conversation is refused, never guessed.
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

PLACEHOLDER = "\ue0f2answer\ue0f3"
"""Rendered in place of an answer to see where the template writes it; private characters that no person's text has."""
CALLS = ("tool_calls", "function_call")
"""Keys of a message that say something without content."""
PART_OF = "a part of "
"""Before a role: turns whose text the template does not write as it is."""
THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a turn's words stand in a rendered conversation, as character positions."""

    start: int
    stop: int
    """Where the words end; the end of the turn follows."""
    turn_stop: int | None = None
    """Where the turn ends, with all that the template writes behind the words; None where that is not known."""


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row's conversation as its template writes it."""

    text: str
    learned: tuple[Span, ...]
    """What is learned, in order; with loss_on `all` what is not."""
    marked: bool
    """Whether the template itself marks the assistant's answers, so that each span is exact."""


def messages_of(row: Row, system_prompt: str | None) -> tuple[list[dict[str, Any]], list[Turn], list[Any] | None]:
    """The row's messages as a template reads them, its turns in the same order, and its tools."""
    turns = list(row.messages or ())
    head = row.system or system_prompt
    if head and (not turns or turns[0].role not in ("system", "developer")):
        turns.insert(0, Turn("system", head))
    return [turn.message() for turn in turns], turns, json.loads(row.tools) if row.tools else None


def render_row(row: Row, templates: ChatTemplates, loss_on: str, system_prompt: str | None) -> RenderedRow:
    """The row's conversation with the spans that are learned. Raises ConversationError where they cannot be found."""
    messages, turns, tools = messages_of(row, system_prompt)
    chat = _Conversation(messages, tools, templates)
    if loss_on == "all":
        excluded = [i for i, turn in enumerate(turns) if not turn.learned]
        return RenderedRow(chat.whole, tuple(map(chat.find, excluded)), False)
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    candidates = answers[-1:] if loss_on == "last_turn" else answers
    learned = [i for i in candidates if turns[i].learned and chat.says_something(i)]
    marked = templates.marked_answers(messages, tools)
    if marked is not None and marked[0] == chat.whole and len(marked[1]) == len(answers):
        ranges = dict(zip(answers, marked[1], strict=True))
        return RenderedRow(chat.whole, tuple(Span(*ranges[i]) for i in learned), True)
    return RenderedRow(chat.whole, tuple(map(chat.find, learned)), False)


class _Conversation:
    """One conversation, rendered in part and with placeholders as often as it takes to find its turns.

    A turn is given by its index among the messages.
    """

    def __init__(self, messages: list[dict[str, Any]], tools: list[Any] | None, templates: ChatTemplates) -> None:
        self._messages, self._tools, self._templates = messages, tools, templates
        self._spans: dict[int, Span] = {}
        self.whole = templates.render_chat(messages, False, tools)

    def says_something(self, i: int) -> bool:
        """Whether the turn has words to learn: content, or calls or reasoning that the template writes."""
        message = self._messages[i]
        if message["content"].strip():
            return True
        return any(message.get(key) for key in (*CALLS, *REASONING)) and self._writes_besides_content(i)

    def find(self, i: int) -> Span:
        """Where the whole conversation has this turn. Raises ConversationError."""
        span = next(self._candidates(i), None)
        if span is None:
            message = "the chat template rewrites earlier turns, so answers cannot be told apart"
            raise ConversationError(message, "messages")
        self._spans[i] = span
        return span

    def _candidates(self, i: int) -> Iterator[Span]:
        """Spans of the turn that agree with the whole conversation, the most certain first."""
        before = self._render(self._messages[:i], prompted=self._is_answer(i))
        after = self._render(self._messages[: i + 1])
        start = self._length_as_beginning(before)
        turn_stop = None if start is None else self._length_as_beginning(after)
        yield from self._by_placeholder(i, start, turn_stop)
        if start is not None and turn_stop is not None and start <= turn_stop:
            yield Span(start, turn_stop, turn_stop)
        for text in self._as_last_turn(i, before, after):
            yield from self._only_occurrence(i, text)

    def _length_as_beginning(self, text: str | None) -> int | None:
        """The length of a text with which the whole conversation begins; None for any other text."""
        return len(text) if text is not None and self.whole.startswith(text) else None

    def _by_placeholder(self, i: int, start: int | None, turn_stop: int | None) -> Iterator[Span]:
        """Spans between what the template writes around a placeholder for the turn's content.

        `start` and `turn_stop` are where the turn begins and ends by its renderings in part, where these agree.
        """
        around = self._around_content(i)
        if around is None:
            return
        head, stop = around[0].rstrip(" "), len(self.whole) - len(around[1])  # a blank before an answer is its own
        if start is not None and len(head) >= start and self._has_content(i, start, stop):
            yield Span(start, stop, turn_stop if turn_stop is not None and turn_stop >= stop else None)
        for begin in (self._behind_opening(i, head), len(head)):
            if begin is not None and self.whole.startswith(head[:begin]) and self._has_content(i, begin, stop):
                yield Span(begin, stop)

    def _behind_opening(self, i: int, head: str) -> int | None:
        """Where an answer begins behind the generation prompt, in the text `head` before its content."""
        if not self._is_answer(i):
            return None
        prompted, plain = self._render(self._messages[:i], prompted=True), self._render(self._messages[:i])
        if prompted is None or plain is None or not prompted.startswith(plain) or len(prompted) == len(plain):
            return None
        opening = prompted[len(plain) :]
        at = head.rfind(opening)
        earlier = self._messages[i - 1]["content"].strip() if i else ""
        between = head[at + len(opening) :]
        return None if at < 0 or (earlier and earlier in between) else at + len(opening)

    def _is_answer(self, i: int) -> bool:
        return bool(self._messages[i]["role"] == "assistant")

    def _render(self, messages: Sequence[dict[str, Any]], prompted: bool = False) -> str | None:
        """A part of the conversation, with the generation prompt where `prompted`; None where the template refuses."""
        if not messages and not prompted:
            return ""
        try:
            return self._templates.render_chat(list(messages), prompted, self._tools)
        except ConversationError:
            return None

    def _around_content(self, i: int) -> tuple[str, str] | None:
        """The text before and behind the turn's content, rendered with a placeholder and without tool calls. None where
        the template does not write the placeholder exactly once."""
        message = {key: value for key, value in self._messages[i].items() if key not in CALLS}
        messages = [*self._messages[:i], {**message, "content": PLACEHOLDER}, *self._messages[i + 1 :]]
        text = self._render(messages)
        if text is None or text.count(PLACEHOLDER) != 1:
            return None
        head, _, tail = text.partition(PLACEHOLDER)
        return (head, tail) if self.whole.endswith(tail) else None

    def _has_content(self, i: int, start: int, stop: int) -> bool:
        """Whether the whole has the turn's content between these characters, with or without its thinking."""
        content = self._messages[i]["content"]
        text = self.whole[start:stop]
        return start <= stop and (content.strip() in text or THINKING.sub("", content).strip() in text)

    def _writes_besides_content(self, i: int) -> bool:
        """Whether the template writes calls or reasoning of the turn."""
        message = {key: value for key, value in self._messages[i].items() if key not in (*CALLS, *REASONING)}
        return self._render([*self._messages[:i], message, *self._messages[i + 1 :]]) != self.whole

    def _as_last_turn(self, i: int, before: str | None, after: str | None) -> Iterator[str]:
        """The turn's text where the conversation ends with it: with its thinking, then without."""
        if before is not None and after is not None and after.startswith(before):
            yield after[len(before) :]
        message = {key: value for key, value in self._messages[i].items() if key not in REASONING}
        message["content"] = THINKING.sub("", message["content"]).lstrip("\n")
        bare = self._render([*self._messages[:i], message])
        if before is not None and bare is not None and bare.startswith(before):
            yield bare[len(before) :]

    def _only_occurrence(self, i: int, text: str) -> Iterator[Span]:
        """Where the whole has this text behind the earlier turns found so far; nothing where it has it more than
        once."""
        least = max((span.stop for earlier, span in self._spans.items() if earlier < i), default=0)
        text = text.rstrip("\n") if text.rstrip("\n") else text
        if text.strip() and self.whole.count(text, least) == 1:
            start = self.whole.index(text, least)
            yield Span(start, start + len(text), start + len(text))


# -- what a template leaves out ---------------------------------------------------------------------------------------
def omissions(row: Row, templates: ChatTemplates, system_prompt: str | None) -> Counter[str]:
    """What the row's conversation has and its template does not write: a message's key, `tools`, or PART_OF and a role,
    each with the number of turns. Raises ConversationError."""
    messages, turns, tools = messages_of(row, system_prompt)
    omitted = Counter[str]()
    whole = templates.render_chat(messages, False, tools)
    if tools and templates.render_chat(messages, False, None) == whole:
        omitted["tools"] += 1
    for key in sorted({key for message in messages for key in message} - {"role", "content"}):
        bare = [{name: value for name, value in message.items() if name != key} for message in messages]
        if templates.render_chat(bare, False, tools) == whole:
            omitted[key] += sum(bool(message.get(key)) for message in messages)
    for turn in turns:
        if turn.content.strip() and turn.content.strip() not in whole:
            omitted[f"{PART_OF}{turn.role}"] += 1
    return omitted


def as_conversation(row: Row, end: str = "") -> Row:
    """A prompt with its completion as the turns of a user and an assistant; earlier questions before them.

    Blanks before the completion (data.separator) join it to the prompt, and are not a part of the answer. `end` is
    removed once from the end of each answer, for the template writes it (`TextTokenizer.written_end`).
    """
    turns = []
    for question, answer in row.history:
        turns += [Turn("user", question), Turn("assistant", without_end(answer, end))]
    last_answer = without_end(row.completion or "", end).lstrip()
    turns += [Turn("user", row.prompt or ""), Turn("assistant", last_answer)]
    return replace(row, prompt=None, completion=None, history=(), messages=tuple(turns))


def without_end(answer: str, end: str) -> str:
    """The answer without the end token's text that stands behind it, and the blanks behind that."""
    bare = answer.rstrip()
    return bare.removesuffix(end) if end and bare.endswith(end) else answer
