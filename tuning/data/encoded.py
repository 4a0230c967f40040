"""Rows as tokens, packed: a few bytes a token in memory, and on disk once they are many.

Comes in: rows, a tokenizer, `DataSettings`.  Goes out: an `EncodedSet`, a sequence of `Encoded` for the loop.  Large
sets lie in a temporary file that has no name and is gone with the run.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast, overload

import numpy as np

from tuning.errors import DataError
from tuning.settings import DataSettings
from tuning.text import ConversationError, Encoded, Row, TextTokenizer, encode_rows

MEMORY_BYTES = 64 * 2**20
CHUNK_ROWS = 256
TOLD_ROWS = 5_000
"""How often a long tokenization says how far it is."""


class EncodedSet(Sequence[Encoded]):
    """Encoded rows packed into one array; each is made into an `Encoded` when it is asked for."""

    def __init__(self, rows: Iterable[Encoded], folder: Path | None = None) -> None:
        self._starts, self._labels, self._cut = array("Q", [0]), array("i"), bytearray()
        tokens = tempfile.SpooledTemporaryFile(  # noqa: SIM115  held as long as the set
            max_size=MEMORY_BYTES, dir=None if folder is None else str(folder)
        )
        for row in rows:
            packed = np.asarray(row.ids, dtype=np.int32) << 1 | np.asarray(row.trained, dtype=np.int32)
            tokens.write(packed.tobytes())
            self._starts.append(self._starts[-1] + len(row.ids))
            self._labels.append(-1 if row.label is None else row.label)
            self._cut.append(row.cut)
        self._file = tokens  # its file on disk has no name: closed, it is gone
        self._tokens: np.ndarray
        if tokens.tell() > MEMORY_BYTES:
            tokens.flush()
            self._tokens = np.memmap(cast(BinaryIO, tokens), dtype=np.int32, mode="r")
        else:
            tokens.seek(0)
            self._tokens = np.frombuffer(tokens.read(), dtype=np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        packed = self._tokens[self._starts[index] : self._starts[index + 1]]
        label = self._labels[index]
        return Encoded(
            ids=(packed >> 1).tolist(), trained=(packed & 1).astype(bool).tolist(),
            label=None if label < 0 else label, cut=bool(self._cut[index]),
        )  # fmt: skip

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, after cutting."""
        return np.diff(np.frombuffer(self._starts, dtype=np.uint64)).astype(int).tolist()


def encode_each(
    rows: Iterable[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str
) -> Iterator[tuple[Row, Encoded]]:
    """Every row beside its tokens, those with nothing to learn from among them.

    A conversation that the model's chat template refuses is a bad row: it is left out where the settings say so.
    """
    source, done = iter(rows), 0

    def encoded(chunk: list[Row]) -> list[Encoded]:
        return encode_rows(
            chunk, tokenizer, max_seq_length=settings.max_seq_length, loss_on=settings.loss_on, task=task,
            system_prompt=settings.system_prompt,
        )  # fmt: skip

    while chunk := list(islice(source, CHUNK_ROWS)):
        try:
            found = encoded(chunk)
        except ConversationError:  # which one, or which ones?
            found = []
            for number, row in enumerate(list(chunk), done + 1):
                try:
                    found += encoded([row])
                except ConversationError as error:
                    if settings.bad_rows != "skip":
                        message = f"conversation {number}: {error}; or leave such rows out with data.bad_rows skip"
                        raise DataError(message, f"conversation {number}", "a conversation it can write") from None
                    chunk.remove(row)
                    done += 1
        yield from zip(chunk, found, strict=True)
        done += len(chunk)


def learnable(row: Encoded) -> bool:
    """Has it a class, or a token whose prediction counts?"""
    return row.label is not None or row.trained_tokens > 0


def encode_pairs(
    rows: Iterable[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str
) -> Iterator[tuple[Row, Encoded]]:
    """Rows beside their tokens; rows with nothing to learn from (an empty answer) are left out."""
    return (pair for pair in encode_each(rows, tokenizer, settings, task) if learnable(pair[1]))


def encode_set(
    rows: Iterable[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str, folder: Path | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> EncodedSet:  # fmt: skip
    """The rows as tokens; rows with nothing to learn from are left out.

    `tell` hears how many rows are done, now and then; `folder` holds the temporary file of a large set.
    """

    def told() -> Iterator[Encoded]:
        for done, (_, one) in enumerate(encode_pairs(rows, tokenizer, settings, task), 1):
            if done % TOLD_ROWS == 0:
                tell(done)
            yield one

    return EncodedSet(told(), folder)
