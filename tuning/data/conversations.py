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
from tuning.data.notices import Told
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
    who = next((first[key] for key in SPEAKER_KEYS if isinstance(first.get(key), str)), "")
    return ROLES.get(_word(who)) == "assistant"


def turns_of(value: Any, column: str, told: Told) -> tuple[Turn, ...]:
    """The turns of a column's value. Raises RowError."""
    turns = _listed(value)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"{column} needs a list of turns with role and content")
    return tuple(_turn(turn, f"turn {number} of {column}", told) for number, turn in enumerate(turns, 1))


def _listed(value: Any, *, look: bool = False) -> Any:
    """JSON text and an object of lists as a list of turns."""
    return turns_in_columns({"": from_json(value, look=look)})[""]


def _word(who: str) -> str:
    return re.sub(r"[\s-]+", "_", who.strip().lower())


def _turn(turn: Any, where: str, told: Told) -> Turn:
    if not isinstance(turn, dict):
        raise RowError(f"{where} needs role and content")
    left = {key: value for key, value in turn.items() if not is_missing(value)}
    speaker = next((key for key in SPEAKER_KEYS if isinstance(left.get(key), str)), None)
    if speaker is None:
        raise RowError(f"{where} needs role and content (or from and value) as texts")
    who = left.pop(speaker)
    role = ROLES.get(_word(who))
    if role is None:
        raise RowError(f"{where} has the unknown role {who!r:.40}; known are user, assistant, system and tool")
    extra = _calls(left, where, told) if role == "assistant" else {}
    extra |= _names(left, role)
    extra |= _reasoning(left, told) if role == "assistant" else {}
    content = _content(left, where, told, bare="tool_calls" in extra)
    if _word(who) in CALL_ROLES:
        content, called = _called(content, where, told)
        extra |= called
    elif who != role:
        told["role", f"{who!r} read as {role}"] += 1
    learned = _learned(left, role, told)
    for key in left:
        told["key", repr(key)] += 1
    if "tool_calls" in extra:
        told["call", ""] += 1
    elif role == "assistant" and not content.strip():
        told["empty_answer", ""] += 1
    written = json.dumps(extra, ensure_ascii=False) if extra else ""
    return Turn(role, content, learned, whole_characters(written, where))


def _content(left: dict[str, Any], where: str, told: Told, bare: bool) -> str:
    """What is said; of parts, their texts. A call of tools may say nothing."""
    key = next((key for key in CONTENT_KEYS if key in left), None)
    if key is None and bare:
        return ""
    said = left.pop(key) if key is not None else None
    if isinstance(said, list):
        said = _joined(said, where, told)
    if not isinstance(said, str):
        raise RowError(f"{where} needs role and content (or from and value) as texts")
    return whole_characters(said, where)


def _joined(parts: list[Any], where: str, told: Told) -> str:
    """The texts of a turn's parts; pictures and the like are left out and counted. Raises RowError where no part is a
    text, or one that should be has none."""
    texts, left = list[str](), Told()
    for part in parts:
        kind = str(part.get("type", "text")) if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) and kind in TEXT_PARTS else part
        if isinstance(text, str):
            texts.append(text)
        elif isinstance(part, dict) and kind not in TEXT_PARTS:
            left["other_part", f"{kind!r:.40}"] += 1
        else:
            raise RowError(f"{where} has a content part of type {kind!r:.40} without a text")
    if left and not "".join(texts).strip():
        raise RowError(f"{where} has no content part with a text, only {', '.join(kind for _, kind in left)}")
    told.update(left)
    told["part", ""] += 1
    return "".join(texts)


def _names(left: dict[str, Any], role: str) -> dict[str, Any]:
    """Further keys that chat templates write."""
    keys = ("name", "tool_call_id") if role == "tool" else ("name",)
    return {key: left.pop(key) for key in keys if isinstance(left.get(key), str) and left[key]}


def _reasoning(left: dict[str, Any], told: Told) -> dict[str, str]:
    found = dict[str, str]()
    for key in REASONING_KEYS:
        if isinstance(left.get(key), str):
            text = left.pop(key)
            if text.strip():
                told["reasoning", ""] += 1
                found["reasoning_content" if key == "reasoning" else key] = text
    return found


def _calls(left: dict[str, Any], where: str, told: Told) -> dict[str, Any]:
    """The tool calls of an answer, in the form that chat templates take; `function_call` is the older spelling."""
    calls = from_json(left.pop("tool_calls", None))
    if calls is None or calls == [] or calls == "":
        calls = []
    if not isinstance(calls, list):
        raise RowError(f"{where} has tool_calls that are no list")
    older = from_json(left.pop("function_call", None))
    if isinstance(older, dict) and older:
        calls = [*calls, older]
    elif older not in (None, "", {}):
        raise RowError(f"{where} has a function_call that is no object")
    return {"tool_calls": [_call(one, where, told) for one in calls]} if calls else {}


def _call(call: Any, where: str, told: Told) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "arguments"}}, whatever else it carries beside."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{where} has a tool call without the name of its function")
    rest = {key: value for key, value in call.items() if key != "function" and value is not None}
    rest = rest if function is not call else {}
    function = dict(function)
    if "arguments" not in function and "parameters" in function:
        function["arguments"] = function.pop("parameters")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        read = from_json(arguments.strip() or "{}")
        told["arguments" if isinstance(read, dict) else "arguments_text", ""] += 1
        function["arguments"] = read if isinstance(read, dict) else arguments
    return {"type": "function", **rest, "function": function}


def _called(content: str, where: str, told: Told) -> tuple[str, dict[str, Any]]:
    """A turn that is a call by its role: its JSON as tool calls; what is no JSON is said as written."""
    try:
        calls = from_json(content)
        calls = [calls] if isinstance(calls, dict) else calls
        read = [_call(one, where, told) for one in calls] if isinstance(calls, list) and calls else []
    except RowError:
        read = []
    told["call_turn" if read else "call_text", ""] += 1
    return ("", {"tool_calls": read}) if read else (content, {})


def _learned(left: dict[str, Any], role: str, told: Told) -> bool:
    learned = True
    for key in LEARNED_KEYS:
        if key in left:
            value = left.pop(key)
            learned = _mark(value, f"{key} {value}", role, told) and learned
    return learned


def _mark(value: Any, words: str, role: str, told: Told) -> bool:
    """What a mark says: 0 or false, not learned; anything else learned, and told where it is not 1 or true."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
        with suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float):
        told["mark", f"{value!r:.40}"] += 1
        return True
    if role != "assistant":
        told["other_mark", ""] += bool(value)
        return True
    if value == 0:
        told["unlearned", words] += 1
    elif value != 1:
        told["weight", f"{value:g}"] += 1
    return bool(value)


def masked(turns: tuple[Turn, ...], mask: Any, column: str, told: Told) -> tuple[Turn, ...]:
    """The turns with a row's own marks: one for each turn, one for each answer, or one for all. Raises RowError."""
    mask = from_json(mask)
    marks: Sequence[Any] = mask if isinstance(mask, list) else [mask] * len(turns)
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if len(marks) == len(turns):
        by_place: Mapping[int, Any] = dict(enumerate(marks))
    elif len(marks) == len(answers):
        by_place = dict(zip(answers, marks, strict=True))
    else:
        raise RowError(f"column {column!r} has {len(marks)} marks for {len(turns)} turns")
    found = []
    for place, turn in enumerate(turns):
        value = by_place.get(place)
        learned = is_missing(value) or _mark(value, f"{column} {value}", turn.role, told)
        found.append(replace(turn, learned=turn.learned and learned))
    return tuple(found)


def unlearned_answers(turns: tuple[Turn, ...], told: Told) -> tuple[Turn, ...]:
    """The turns of a prompt: its answers are read and not learned."""
    told["earlier", ""] += sum(turn.role == "assistant" for turn in turns)
    return tuple(replace(turn, learned=False) if turn.role == "assistant" else turn for turn in turns)


def count_systems(turns: tuple[Turn, ...], told: Told) -> None:
    """Tell of system turns where chat templates do not expect them."""
    places = [place for place, turn in enumerate(turns) if turn.role == "system"]
    told["system_twice", ""] += len(places) > 1
    told["system_late", ""] += bool(places) and places[0] > 0


def tools_of(value: Any, column: str, told: Told) -> str | None:
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
    found = []
    for tool in map(from_json, tools):
        bare = "function" not in tool and "name" in tool and "type" not in tool
        told["tools_bare", ""] += bare
        found.append({"type": "function", "function": tool} if bare else tool)
    told["tools", ""] += 1
    return whole_characters(json.dumps(found, ensure_ascii=False), f"column {column!r}")


def history_of(value: Any, column: str, told: Told) -> tuple[tuple[str, str], ...]:
    """Earlier questions with their answers: pairs, objects of two texts, or turns. Raises RowError."""
    if is_missing(value) or value == "":
        return ()
    pairs = from_json(value)
    if is_talk(pairs):
        turns = turns_of(pairs, column, told)
        if len(turns) % 2 or [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise RowError(f"column {column!r} needs a question and an answer in turn")
        pairs = [[asked.content, said.content] for asked, said in zip(turns[::2], turns[1::2], strict=True)]
    if not isinstance(pairs, list):
        raise RowError(f"column {column!r} is no list of questions with their answers")
    found = []
    for pair in pairs:
        pair = list(pair.values()) if isinstance(pair, dict) else pair
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"column {column!r} is no list of questions with their answers")
        asked, said = (as_text(one, column, empty=True) for one in pair)
        found.append((asked, said))
    told["history", ""] += len(found)
    return tuple(found)
