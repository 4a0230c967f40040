"""Rows that are there more than once, rows that are trained on and evaluated on, and rows with nothing to learn from.

The data set is of a size that may be read whole; the counts become notices.
"""

from __future__ import annotations

from collections import Counter

from tuning.core.errors import Notice
from tuning.data.data_set import DataSet
from tuning.text import Row


def repeated(data: DataSet) -> dict[str, int]:
    """Counts of training rows that repeat an earlier one, and of evaluation rows that are trained on too."""
    train = Counter(map(hash, data.train))
    return {
        "duplicates": sum(train.values()) - len(train),
        "in_both": sum(hash(row) in train for row in data.eval),
    }


def is_empty(row: Row) -> bool:
    """Whether there is nothing to learn from: no answer, no text, no turn of an assistant."""
    if row.messages is not None:
        answers = [turn for turn in row.messages if turn.role == "assistant" and turn.learned]
        return not any(turn.content.strip() or turn.extra for turn in answers)
    return not (row.completion if row.completion is not None else row.text or "").strip()


def repeat_notices(data: DataSet) -> tuple[Notice, ...]:
    """Notices about repeated rows. Every row of the data set is read for them."""
    counts = repeated(data)
    notices = list[Notice]()
    if count := counts["in_both"]:
        message = f"{_rows(count, 'evaluation row')} trained on too: the evaluation flatters."
        notices.append(Notice(field="data.source", message=message, count=count))
    if count := counts["duplicates"]:
        message = "1 training row repeats an earlier one and is learned once more."
        if count > 1:
            message = f"{count:,} training rows repeat earlier ones and are learned once more each."
        notices.append(Notice(field="data.source", message=message, count=count))
    return tuple(notices)


def _rows(count: int, what: str) -> str:
    return f"1 {what} is" if count == 1 else f"{count:,} {what}s are"
