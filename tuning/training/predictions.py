"""The table of evaluation rows: text, truth, prediction, and how wrong it was, after each evaluation.

Comes in: an evaluation and the rows it was made on.  Goes out: `predictions/step-N.json` in the run's folder, at most
`MOST_ROWS` rows, whole or not at all; the page and people read it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.core.files import write_text
from tuning.text import Encoded, Row, TextTokenizer, text_before_completion
from tuning.training.evaluate import Evaluation, Guess, confusion

MOST_ROWS = 100
_LONGEST = 600
"""Characters of a text that are kept."""


def predictions(
    found: Evaluation,
    metrics: Mapping[str, float],
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    labels: Sequence[str] | None,
    written: dict[int, str],
    encoded: Sequence[Encoded] = (),
) -> dict[str, Any]:
    """Plain data: metrics, one object a row, and for classes the confusion matrix.

    A row that is learned whole, as `encoded` tells, has no question and so no answer that could be right: its line has
    no `truth`, and `right` is None.
    """
    shown = found.guesses[:MOST_ROWS]
    table: dict[str, Any] = {
        "loss": found.loss if math.isfinite(found.loss) else None,
        "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.items()},
        "rows": [
            _whole_line(guess, rows[guess.index], tokenizer)
            if labels is None and encoded and len(guess.wanted) >= len(encoded[guess.index].ids) - 1
            else _line(guess, rows[guess.index], tokenizer, labels, written)
            for guess in shown
        ],
        "of": len(found.guesses),
    }
    if labels is not None:
        said = [guess.said[0] for guess in found.guesses]
        wanted = [guess.wanted[0] for guess in found.guesses]
        table |= {"labels": list(labels), "confusion": confusion(said, wanted, len(labels))}
    return table


def write_predictions(folder: Path, step: int, table: dict[str, Any]) -> Path:
    """The file of this step; an older one of the same step is replaced."""
    place = folder / "predictions" / f"step-{step:08d}.json"
    write_text(place, json.dumps({"step": step, **table}, ensure_ascii=False))
    return place


def _whole_line(guess: Guess, row: Row, tokenizer: TextTokenizer) -> dict[str, Any]:
    """A row of which every token is learned: its text, and the token held likeliest at each place of it."""
    if row.messages is not None:
        text = "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)
    else:
        text = (row.text or "") if row.prompt is None else row.prompt + (row.completion or "")
    loss = guess.loss if math.isfinite(guess.loss) else None
    said = _short(tokenizer.decode(guess.said))
    return {"row": guess.index, "loss": loss, "text": _short(text), "prediction": said, "right": None}


def _line(
    guess: Guess, row: Row, tokenizer: TextTokenizer, labels: Sequence[str] | None, written: dict[int, str]
) -> dict[str, Any]:
    line: dict[str, Any] = {"row": guess.index, "loss": guess.loss if math.isfinite(guess.loss) else None}
    if labels is not None:
        return line | {
            "text": _short(row.text or "") if row.text_pair is None else _short(f"{row.text}\n{row.text_pair}"),
            "truth": labels[guess.wanted[0]],
            "prediction": labels[guess.said[0]],
            "chance": guess.chances[guess.said[0]],
            "right": guess.said == guess.wanted,
        }
    said = written.get(guess.index)
    line |= {
        "text": _short(_context(row)),
        "truth": _short(tokenizer.decode(guess.wanted)),
        "prediction": _short(tokenizer.decode(guess.said)),
        "right": _right(guess, tokenizer.eos_id),
    }
    return line if said is None else line | {"written": _short(said)}


def _right(guess: Guess, eos_id: int | None) -> bool:
    """Every token but the end of the text: a model that was never taught to stop there can know the answer."""
    pairs = list(zip(guess.said, guess.wanted, strict=True))
    return all(said == wanted for said, wanted in [one for one in pairs if one[1] != eos_id] or pairs)


def _context(row: Row) -> str:
    if row.messages is not None:
        return "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages[:-1])
    return text_before_completion(row, None) if row.prompt is not None else row.text or ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
