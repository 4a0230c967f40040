"""The table of evaluation rows after an evaluation: text, truth, prediction and loss of each.

`predictions/step-N.json` in the run's folder has at most `MOST_ROWS` rows. The page shows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.core.files import write_text
from tuning.text import EncodedRow, Row, TextTokenizer, text_before_completion
from tuning.training.evaluate import Evaluation, Prediction, confusion

MOST_ROWS = 100
_LONGEST = 600
"""Characters that a text is cut to."""


def predictions_table(
    evaluation: Evaluation,
    metrics: Mapping[str, float],
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    class_names: Sequence[str] | None,
    written: dict[int, str],
    encoded: Sequence[EncodedRow] = (),
) -> dict[str, Any]:
    """The table as JSON: metrics, one object a row, and for classes the confusion matrix.

    `written` has generated answers by the index of their row. A row of which `encoded` says that every token is a label
    has no question, and so no answer that could be right: it has no `truth`, and its `right` is None.
    """
    shown = evaluation.predictions[:MOST_ROWS]
    table: dict[str, Any] = {
        "loss": _finite(evaluation.loss),
        "metrics": {key: _finite(value) for key, value in metrics.items()},
        "rows": [
            _text_line(prediction, rows[prediction.index], tokenizer)
            if class_names is None and encoded and len(prediction.target) >= len(encoded[prediction.index].ids) - 1
            else _line(prediction, rows[prediction.index], tokenizer, class_names, written)
            for prediction in shown
        ],
        "of": len(evaluation.predictions),
    }
    if class_names is not None:
        predicted = [prediction.predicted[0] for prediction in evaluation.predictions]
        target = [prediction.target[0] for prediction in evaluation.predictions]
        table |= {"labels": list(class_names), "confusion": confusion(predicted, target, len(class_names))}
    return table


def write_predictions(folder: Path, step: int, table: dict[str, Any]) -> Path:
    """Write the table of this step into the run's folder, whole or not at all, and return its path."""
    path = folder / "predictions" / f"step-{step:08d}.json"
    write_text(path, json.dumps({"step": step, **table}, ensure_ascii=False))
    return path


def _text_line(prediction: Prediction, row: Row, tokenizer: TextTokenizer) -> dict[str, Any]:
    """A row of which every token is a label: its text, and the likeliest token at each position."""
    if row.messages is not None:
        text = "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)
    else:
        text = (row.text or "") if row.prompt is None else row.prompt + (row.completion or "")
    predicted = _short(tokenizer.decode(prediction.predicted))
    line = {"row": prediction.index, "loss": _finite(prediction.loss), "text": _short(text)}
    return line | {"prediction": predicted, "right": None}


def _line(
    prediction: Prediction,
    row: Row,
    tokenizer: TextTokenizer,
    class_names: Sequence[str] | None,
    written: dict[int, str],
) -> dict[str, Any]:
    line: dict[str, Any] = {"row": prediction.index, "loss": _finite(prediction.loss)}
    if class_names is not None:
        return line | {
            "text": _short(row.text or "") if row.text_pair is None else _short(f"{row.text}\n{row.text_pair}"),
            "truth": class_names[prediction.target[0]],
            "prediction": class_names[prediction.predicted[0]],
            "chance": prediction.probabilities[prediction.predicted[0]],
            "right": prediction.predicted == prediction.target,
        }
    line |= {
        "text": _short(_context(row)),
        "truth": _short(tokenizer.decode(prediction.target)),
        "prediction": _short(tokenizer.decode(prediction.predicted)),
        "right": _right(prediction, tokenizer.eos_id),
    }
    text = written.get(prediction.index)
    return line if text is None else line | {"written": _short(text)}


def _right(prediction: Prediction, eos_id: int | None) -> bool:
    """Whether every token but the end of the text is right: a model that was never trained to stop there can know the
    answer."""
    pairs = list(zip(prediction.predicted, prediction.target, strict=True))
    before_end = [(predicted, target) for predicted, target in pairs if target != eos_id]
    return all(predicted == target for predicted, target in before_end or pairs)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _context(row: Row) -> str:
    if row.messages is not None:
        return "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages[:-1])
    return text_before_completion(row, None) if row.prompt is not None else row.text or ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
