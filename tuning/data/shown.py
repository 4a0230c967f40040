"""Tokens and lengths as a page can draw them.

Comes in: a row as tokens, the maximum length.  Goes out: short texts with what happens to each token, and a histogram.
"""

from __future__ import annotations

import re
from typing import Any

from tuning.text import Spelled, TextTokenizer

FIRST_TOKENS, LAST_TOKENS = 240, 60
BARS = 24
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def shown_tokens(row: Spelled, limit: int, tokenizer: TextTokenizer, long_text: str = "cut") -> dict[str, Any]:
    """The row's tokens as [text, state, special]: state is trained, seen or cut; a gap stands for many in the middle.

    Tokens that only together make one character (an emoji in bytes) are shown as one, with their number.
    """
    count = len(row.ids)
    split = row.plain and long_text == "split" and count > limit
    kept = row.blocks(limit) if split else row.kept(limit)
    firsts = {start for start, _ in kept} if split else {0}  # nothing stands before them to predict them from

    def state(place: int) -> str:
        if not any(start <= place < stop for start, stop in kept):
            return "cut"
        return "trained" if row.trained[place] and place not in firsts else "seen"

    places = list(range(count))
    gap = count - FIRST_TOKENS - LAST_TOKENS
    if gap > 0:
        places = places[:FIRST_TOKENS] + places[-LAST_TOKENS:]
    tokens: list[list[Any]] = []
    waiting: list[int] = []
    for place in places:
        if gap > 0 and place == count - LAST_TOKENS:
            tokens.append([f"… {gap:,} more tokens …", "gap", False, 0])
        waiting.append(row.ids[place])
        text = _text(waiting, tokenizer)
        if text is not None or len(waiting) == 4:
            special = row.ids[place] in tokenizer.special_ids
            tokens.append([text or "\ufffd", state(place), special, len(waiting)])
            waiting = []
    return {"tokens": tokens, "count": count, "kept": sum(stop - start for start, stop in kept), "label": row.label}


def _text(ids: list[int], tokenizer: TextTokenizer) -> str | None:
    """The tokens' text; None while they are but a part of a character."""
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


def histogram(lengths: list[int], limit: int) -> dict[str, Any]:
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
