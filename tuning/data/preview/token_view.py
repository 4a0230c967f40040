"""Rows, tokens and lengths as a page can draw them.

These are as much of a row as a look needs, short texts with what happens to each token, and a histogram of lengths.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypedDict

from tuning.text import Row, TextTokenizer, TokenizedRow, Turn

FIRST_TOKENS, LAST_TOKENS = 240, 60
BARS = 24
TURN_LETTERS = 20
"""What a template writes around a turn, about: so that many empty turns count too."""
MOST_TURNS = 100
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Histogram(TypedDict):
    """Numbers of rows by length, in bars of `bar` tokens; `beyond` of them are longer than the end of the last bar."""

    bar: int
    counts: list[int]
    beyond: int


class TokenView(TypedDict):
    """A row's tokens, each as [text, state, special, number of tokens]; how many there are, and how many are kept.

    The state is trained, seen or cut; a gap stands for many in the middle. `label` is the number of the row's class.
    """

    tokens: list[list[Any]]
    count: int
    kept: int
    label: int | None


def beginning_of(row: Row, most: int) -> Row:
    """The row with at most about so many letters of each of its texts: of a prompt its end, of the turns of a
    conversation the first ones. The same object where nothing was left out."""
    changes: dict[str, Any] = {}
    for name in ("text", "text_pair", "completion", "system"):
        text = getattr(row, name)
        if text is not None and len(text) > most:
            changes[name] = text[:most]
    if row.prompt is not None and len(row.prompt) > most:
        changes["prompt"] = row.prompt[-most:]
    if row.tools is not None and len(row.tools) > most:  # JSON cannot be cut
        changes["tools"] = None
    turns, history = _first_turns(row.messages or (), most), _last_pairs(row.history, most)
    if row.messages is not None and turns != row.messages:
        changes["messages"] = turns
    if history != row.history:
        changes["history"] = history
    return replace(row, **changes) if changes else row


def _first_turns(turns: tuple[Turn, ...], most: int) -> tuple[Turn, ...]:
    """The first turns up to so many letters, and to the first answer."""
    first, letters, answered = list[Turn](), 0, False
    for turn in turns:
        if letters > most and (answered or len(first) >= MOST_TURNS):
            break
        fits = len(turn.content) <= most and len(turn.extra) <= most
        extra = turn.extra if len(turn.extra) <= most else ""
        first.append(turn if fits else replace(turn, content=turn.content[:most], extra=extra))
        letters += TURN_LETTERS + len(turn.content) + len(turn.extra)
        answered = answered or turn.role == "assistant"
    return tuple(first)


def _last_pairs(pairs: tuple[tuple[str, str], ...], most: int) -> tuple[tuple[str, str], ...]:
    """The last questions and answers up to so many letters."""
    last, letters = list[tuple[str, str]](), 0
    for question, answer in reversed(pairs):
        if letters > most:
            break
        last.append((question[:most], answer[:most]))
        letters += TURN_LETTERS + len(question) + len(answer)
    return tuple(reversed(last))


def shown_tokens(row: TokenizedRow, limit: int, tokenizer: TextTokenizer, long_text: str = "cut") -> TokenView:
    """The row's tokens and what becomes of each.

    Tokens that only together make one character (an emoji in bytes) are shown as one, with their number.
    """
    count = len(row.ids)
    split = row.plain and long_text == "split" and count > limit
    kept = row.block_ranges(limit) if split else row.cut_ranges(limit)
    block_starts = {start for start, _ in kept} if split else {0}  # nothing stands before them to predict them from

    def state(i: int) -> str:
        if not any(start <= i < stop for start, stop in kept):
            return "cut"
        return "trained" if row.trained[i] and i not in block_starts else "seen"

    indices = list(range(count))
    gap = count - FIRST_TOKENS - LAST_TOKENS
    if gap > 0:
        indices = indices[:FIRST_TOKENS] + indices[-LAST_TOKENS:]
    tokens: list[list[Any]] = []
    pending: list[int] = []
    for i in indices:
        if gap > 0 and i == count - LAST_TOKENS:
            tokens.append([f"… {gap:,} more tokens …", "gap", False, 0])
        pending.append(row.ids[i])
        text = _text(pending, tokenizer)
        if text is not None or len(pending) == 4:
            special = row.ids[i] in tokenizer.special_ids
            tokens.append([text or "\ufffd", state(i), special, len(pending)])
            pending = []
    return {"tokens": tokens, "count": count, "kept": sum(stop - start for start, stop in kept), "label": row.label}


def _text(ids: list[int], tokenizer: TextTokenizer) -> str | None:
    """The text of these tokens; None while they are a part of a character only."""
    if len(ids) == 1:
        piece = tokenizer.piece(ids[0]) or ""
        if ids[0] in tokenizer.special_ids or piece.startswith("##"):
            return piece
        byte = _BYTE.fullmatch(piece)
        if byte and int(byte[1], 16) < 128:
            return chr(int(byte[1], 16))
        if "\u2581" in piece:  # decoding one token alone would drop its space
            return piece.replace("\u2581", " ")
    text = tokenizer.decode(ids)
    return None if "\ufffd" in text else text


def histogram(lengths: list[int], limit: int) -> Histogram:
    """Counts of lengths in equal bars from 0; a few very long rows share the last bar, so that the rest stays wide."""
    ordered = sorted(lengths)
    usual = ordered[int(0.98 * (len(ordered) - 1))]
    end = max(usual, limit if limit <= 4 * usual else 0, BARS)  # the limit is drawn too, unless it is far away
    width = -(-end // BARS)
    counts = [0] * BARS
    for length in lengths:
        counts[min(BARS - 1, (length - 1) // width)] += 1
    beyond = sum(length > width * BARS for length in lengths)
    return {"bar": width, "counts": counts, "beyond": beyond}
