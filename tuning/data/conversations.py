"""Conversations in the forms people have them, as turns in the words of chat templates.

A column of turns has role and content, or from and value, as a list, as a struct of lists or as JSON text; with marks
of what is learned, and tool calls and results in their spellings. What was read otherwise than it is written, and what
was not used, is counted; what cannot be read raises RowError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tuning.data.files.table import turns_in_columns
from tuning.data.notices import NoticeCounts
from tuning.data.values import RowError, as_text, from_json, is_missing, whole_characters
from tuning.text import Turn

SPEAKER_KEYS = ("role", "from", "speaker", "author")
CONTENT_KEYS = ("content", "value", "text", "utterance", "message")
ROLE_WORDS = {
    "system": ("system", "developer", "system_prompt", "instructions"),
    "user": ("user", "human", "prompter", "customer", "person", "question", "usr"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "llm", "bing", "bard", "claude"),
    "tool": (
        *("tool", "observation", "function", "function_response", "function_result", "function_output"),
        *("tool_response", "tool_result", "tool_output", "ipython", "environment"),
    ),
}
CALL_ROLES = ("function_call", "tool_call", "tool_calls")
"""Turns of the assistant whose content is a call of a tool, as JSON."""
ROLES = {word: role for role, words in ROLE_WORDS.items() for word in words} | dict.fromkeys(CALL_ROLES, "assistant")
LEARNED_KEYS = ("weight", "loss_weight", "loss_mask", "train", "trainable", "loss")
"""Keys of a turn that say whether it is learned: 0 or false means not."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
TEXT_PARTS = ("text", "input_text", "output_text")


def is_talk(value: Any) -> bool:
    """Whether the value looks like a conversation: turns of who speaks and what is said."""
    value = _listed(value, look=True)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    turn = value[0]
    says = any(key in turn for key in CONTENT_KEYS[:2]) or "tool_calls" in turn
    said_otherwise = any(key in turn for key in CONTENT_KEYS[2:])
    return (
        any(key in turn for key in SPEAKER_KEYS[:2])
        and (says or said_otherwise)
        or (any(key in turn for key in SPEAKER_KEYS[2:]) and said_otherwise)
    )


def starts_with_answer(value: Any) -> bool:
    """Whether these turns go on from a prompt: the first one is the assistant's."""
    turns = _listed(value, look=True)
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, dict):
        return False
    speaker = next((first[key] for key in SPEAKER_KEYS if isinstance(first.get(key), str)), "")
    return ROLES.get(_word(speaker)) == "assistant"


def turns_of(value: Any, column: str, counts: NoticeCounts) -> tuple[Turn, ...]:
    """The turns of a column's value. Raises RowError."""
    turns = _listed(value)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"{column} needs a list of turns with role and content")
    return tuple(_turn(turn, f"turn {number} of {column}", counts) for number, turn in enumerate(turns, 1))


def _listed(value: Any, *, look: bool = False) -> Any:
    """The value with JSON text, or an object of lists, as a list of turns."""
    return turns_in_columns({"": from_json(value, look=look)})[""]


def _word(role: str) -> str:
    """A role in small letters with underscores."""
    return re.sub(r"[\s-]+", "_", role.strip().lower())


def _turn(turn: Any, where: str, counts: NoticeCounts) -> Turn:
    """One turn from its object; `where` names it in messages. Raises RowError."""
    if not isinstance(turn, dict):
        raise RowError(f"{where} needs role and content")
    unread = {key: value for key, value in turn.items() if not is_missing(value)}
    speaker = _take_speaker(unread, where)
    role = ROLES.get(_word(speaker))
    if role is None:
        raise RowError(f"{where} has the unknown role {speaker!r:.40}; known are user, assistant, system and tool")
    extra = _extra(unread, role, where, counts)
    content = _take_content(unread, where, counts, optional="tool_calls" in extra)
    if _word(speaker) in CALL_ROLES:
        content, calls = _call_turn(content, where, counts)
        extra |= calls
    elif speaker != role:
        counts["role", f"{speaker!r} read as {role}"] += 1
    learned = _take_learned(unread, role, counts)
    counts.update(("key", repr(key)) for key in unread)
    if "tool_calls" in extra:
        counts["call", ""] += 1
    elif role == "assistant" and not content.strip():
        counts["empty_answer", ""] += 1
    written = json.dumps(extra, ensure_ascii=False) if extra else ""
    return Turn(role, content, learned, whole_characters(written, where))


def _take_speaker(unread: dict[str, Any], where: str) -> str:
    """Who speaks, taken out of the turn's keys. Raises RowError where no key says it."""
    key = next((key for key in SPEAKER_KEYS if isinstance(unread.get(key), str)), None)
    if key is None:
        raise RowError(f"{where} needs role and content (or from and value) as texts")
    speaker: str = unread.pop(key)
    return speaker


def _extra(unread: dict[str, Any], role: str, where: str, counts: NoticeCounts) -> dict[str, Any]:
    """What a chat template may write of a turn besides its content, taken out of the turn's keys. Raises RowError."""
    if role != "assistant":
        return _take_names(unread, role)
    return _take_calls(unread, where, counts) | _take_names(unread, role) | _take_reasoning(unread, counts)


def _take_content(unread: dict[str, Any], where: str, counts: NoticeCounts, *, optional: bool) -> str:
    """What is said, taken out of the turn's keys; of parts, their texts joined. A call of tools may say nothing, which
    `optional` allows. Raises RowError."""
    key = next((key for key in CONTENT_KEYS if key in unread), None)
    if key is None and optional:
        return ""
    content = unread.pop(key) if key is not None else None
    if isinstance(content, list):
        content = _joined_parts(content, where, counts)
    if not isinstance(content, str):
        raise RowError(f"{where} needs role and content (or from and value) as texts")
    return whole_characters(content, where)


def _joined_parts(parts: list[Any], where: str, counts: NoticeCounts) -> str:
    """The texts of a turn's parts; pictures and the like are left out and counted. Raises RowError where no part is a
    text, or one that should be has none."""
    texts, other_parts = list[str](), NoticeCounts()
    for part in parts:
        kind = str(part.get("type", "text")) if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) and kind in TEXT_PARTS else part
        if isinstance(text, str):
            texts.append(text)
        elif isinstance(part, dict) and kind not in TEXT_PARTS:
            other_parts["other_part", f"{kind!r:.40}"] += 1
        else:
            raise RowError(f"{where} has a content part of type {kind!r:.40} without a text")
    if other_parts and not "".join(texts).strip():
        raise RowError(f"{where} has no content part with a text, only {', '.join(kind for _, kind in other_parts)}")
    counts.update(other_parts)
    counts["part", ""] += 1
    return "".join(texts)


def _take_names(unread: dict[str, Any], role: str) -> dict[str, Any]:
    """The names that chat templates write, of a speaker or of a tool's call, taken out of the turn's keys."""
    keys = ("name", "tool_call_id") if role == "tool" else ("name",)
    return {key: unread.pop(key) for key in keys if isinstance(unread.get(key), str) and unread[key]}


def _take_reasoning(unread: dict[str, Any], counts: NoticeCounts) -> dict[str, str]:
    """The reasoning of an answer by the key that chat templates read, taken out of the turn's keys."""
    reasoning = dict[str, str]()
    for key in REASONING_KEYS:
        if isinstance(unread.get(key), str):
            text = unread.pop(key)
            if text.strip():
                counts["reasoning", ""] += 1
                reasoning["reasoning_content" if key == "reasoning" else key] = text
    return reasoning


def _take_calls(unread: dict[str, Any], where: str, counts: NoticeCounts) -> dict[str, Any]:
    """The tool calls of an answer in the form that chat templates take, taken out of the turn's keys; `function_call`
    is the older spelling. Raises RowError."""
    calls = from_json(unread.pop("tool_calls", None))
    if calls is None or calls == [] or calls == "":
        calls = []
    if not isinstance(calls, list):
        raise RowError(f"{where} has tool_calls that are no list")
    older = from_json(unread.pop("function_call", None))
    if isinstance(older, dict) and older:
        calls = [*calls, older]
    elif older not in (None, "", {}):
        raise RowError(f"{where} has a function_call that is no object")
    return {"tool_calls": [_call(call, where, counts) for call in calls]} if calls else {}


def _call(call: Any, where: str, counts: NoticeCounts) -> dict[str, Any]:
    """A tool call as {"type": "function", "function": {"name", "arguments"}} with its other keys. Raises RowError."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{where} has a tool call without the name of its function")
    other_keys = {key: value for key, value in call.items() if key != "function" and value is not None}
    other_keys = other_keys if function is not call else {}
    function = dict(function)
    if "arguments" not in function and "parameters" in function:
        function["arguments"] = function.pop("parameters")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        parsed = from_json(arguments.strip() or "{}")
        counts["arguments" if isinstance(parsed, dict) else "arguments_text", ""] += 1
        function["arguments"] = parsed if isinstance(parsed, dict) else arguments
    return {"type": "function", **other_keys, "function": function}


def _call_turn(content: str, where: str, counts: NoticeCounts) -> tuple[str, dict[str, Any]]:
    """Content and further keys of a turn that is a tool call by its role: its JSON as tool calls; what is no JSON stays
    the content."""
    try:
        calls = from_json(content)
        calls = [calls] if isinstance(calls, dict) else calls
        tool_calls = [_call(call, where, counts) for call in calls] if isinstance(calls, list) and calls else []
    except RowError:
        tool_calls = []
    counts["call_turn" if tool_calls else "call_text", ""] += 1
    return ("", {"tool_calls": tool_calls}) if tool_calls else (content, {})


def _take_learned(unread: dict[str, Any], role: str, counts: NoticeCounts) -> bool:
    """Whether the marks in a turn's keys let it be learned; the marks are taken out."""
    learned = True
    for key in LEARNED_KEYS:
        if key in unread:
            value = unread.pop(key)
            learned = _mark(value, f"{key} {value}", role, counts) and learned
    return learned


def _mark(value: Any, words: str, role: str, counts: NoticeCounts) -> bool:
    """Whether a mark lets its turn be learned: not where it is 0 or false. Anything else that is not 1 or true is
    counted for a notice."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
        with suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float):
        counts["mark", f"{value!r:.40}"] += 1
        return True
    if role != "assistant":
        counts["other_mark", ""] += bool(value)
        return True
    if value == 0:
        counts["unlearned", words] += 1
    elif value != 1:
        counts["weight", f"{value:g}"] += 1
    return bool(value)


def masked(turns: tuple[Turn, ...], mask: Any, column: str, counts: NoticeCounts) -> tuple[Turn, ...]:
    """The turns with a row's own marks: one for each turn, one for each answer, or one for all. Raises RowError."""
    mask = from_json(mask)
    marks: Sequence[Any] = mask if isinstance(mask, list) else [mask] * len(turns)
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    if len(marks) == len(turns):
        mark_by_turn: Mapping[int, Any] = dict(enumerate(marks))
    elif len(marks) == len(answers):
        mark_by_turn = dict(zip(answers, marks, strict=True))
    else:
        raise RowError(f"column {column!r} has {len(marks)} marks for {len(turns)} turns")
    turns_with_marks = []
    for i, turn in enumerate(turns):
        value = mark_by_turn.get(i)
        learned = is_missing(value) or _mark(value, f"{column} {value}", turn.role, counts)
        turns_with_marks.append(replace(turn, learned=turn.learned and learned))
    return tuple(turns_with_marks)


def unlearned_answers(turns: tuple[Turn, ...], counts: NoticeCounts) -> tuple[Turn, ...]:
    """The turns of a prompt: its answers are read and not learned."""
    counts["earlier", ""] += sum(turn.role == "assistant" for turn in turns)
    return tuple(replace(turn, learned=False) if turn.role == "assistant" else turn for turn in turns)


def count_systems(turns: tuple[Turn, ...], counts: NoticeCounts) -> None:
    """Count system turns where chat templates do not expect them."""
    positions = [i for i, turn in enumerate(turns) if turn.role == "system"]
    counts["system_twice", ""] += len(positions) > 1
    counts["system_late", ""] += bool(positions) and positions[0] > 0


def tools_of(value: Any, column: str, counts: NoticeCounts) -> str | None:
    """The tools of a row as JSON, a list of function schemas; None where there are none. Raises RowError."""
    if is_missing(value):
        return None
    tools = from_json(value)
    if isinstance(tools, str) and not tools.strip():
        return None
    tools = [tools] if isinstance(tools, dict) else tools
    if not isinstance(tools, list) or not all(isinstance(from_json(tool), dict) for tool in tools):
        raise RowError(f"column {column!r} is no list of tools, each an object with a name")
    if not tools:
        return None
    schemas = []
    for tool in map(from_json, tools):
        bare = "function" not in tool and "name" in tool and "type" not in tool
        counts["tools_bare", ""] += bare
        schemas.append({"type": "function", "function": tool} if bare else tool)
    counts["tools", ""] += 1
    return whole_characters(json.dumps(schemas, ensure_ascii=False), f"column {column!r}")


def history_of(value: Any, column: str, counts: NoticeCounts) -> tuple[tuple[str, str], ...]:
    """Earlier questions with their answers: pairs, objects of two texts, or turns. Raises RowError."""
    if is_missing(value) or value == "":
        return ()
    pairs = from_json(value)
    if is_talk(pairs):
        turns = turns_of(pairs, column, counts)
        if len(turns) % 2 or [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise RowError(f"column {column!r} needs a question and an answer in turn")
        pairs = [[question.content, answer.content] for question, answer in zip(turns[::2], turns[1::2], strict=True)]
    if not isinstance(pairs, list):
        raise RowError(f"column {column!r} is no list of questions with their answers")
    history = []
    for pair in pairs:
        pair = list(pair.values()) if isinstance(pair, dict) else pair
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"column {column!r} is no list of questions with their answers")
        question, answer = (as_text(text, column, empty=True) for text in pair)
        history.append((question, answer))
    counts["history", ""] += len(history)
    return tuple(history)
