"""Rows as tokens, packed: a few bytes a token in memory, and on disk once they are many.

An `EncodedSet` is a sequence of `EncodedRow` for the loop. Large sets lie in a temporary file that has no name and is
gone with the run; one that is stored is a safetensors file, whose checksum is looked at when it is opened.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast, overload

import numpy as np

from tuning.core.errors import DataError, ShouldContinue, check_stop
from tuning.settings.schema import DataSettings
from tuning.text import ConversationError, EncodedRow, Row, TextTokenizer, TokenizedRow, characters, tokenize_rows

MEMORY_BYTES = 64 * 2**20
CHUNK_ROWS, CHUNK_CHARACTERS = 256, 250_000
"""Rows and characters that are tokenized at once, a fraction of a second: a stop is noticed only between two such
chunks."""
PROGRESS_ROWS = 5_000
"""Tokenizing reports its progress once in so many examples."""
COUNTED_ROWS = 16_384
"""Label tokens are counted of so many rows at once."""
PIECE_BYTES = 4 * 2**20
DTYPES = {
    "starts": ("U64", np.uint64),
    "tokens": ("I32", np.int32),
    "labels": ("I32", np.int32),
    "cut": ("U8", np.uint8),
}
"""The arrays of a stored file, the widest numbers first, so that all lie at multiples of their size."""


class EncodedSet(Sequence[EncodedRow]):
    """EncodedRow rows packed into arrays; each is made into an `EncodedRow` when it is asked for."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """`starts` (rows + 1) says where each row begins in `tokens`, which hold 4 x id + 2 x type + trained; `labels`
        (rows) are -1 where there is none, `cut` (rows) has bit 1 where the row was cut, bit 2 where it has types."""
        self._arrays = arrays
        self._starts, self._tokens, self._labels, self._cut = (arrays[name] for name in DTYPES)

    @staticmethod
    def of(rows: Iterable[EncodedRow], folder: Path | None = None) -> EncodedSet:
        """Pack rows; `folder` holds the temporary file of many."""
        starts, labels, cut = array("Q", [0]), array("i"), bytearray()
        file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  held by its map; without a name: closed, it is gone
            max_size=MEMORY_BYTES, dir=None if folder is None else str(folder)
        )
        for row in rows:
            packed = np.asarray(row.ids, dtype=np.int32) << 2 | np.asarray(row.trained, dtype=np.int32)
            if row.types is not None:
                packed |= np.minimum(np.asarray(row.types, dtype=np.int32), 1) << 1
            file.write(packed.tobytes())
            starts.append(starts[-1] + len(row.ids))
            labels.append(-1 if row.label is None else row.label)
            cut.append(row.cut | (row.types is not None) << 1)
        if file.tell() > MEMORY_BYTES:
            file.flush()
            tokens: np.ndarray = np.memmap(cast(BinaryIO, file), dtype=np.int32, mode="r")
        else:
            file.seek(0)
            tokens = np.frombuffer(file.read(), dtype=np.int32)
        return EncodedSet(
            {
                "starts": np.frombuffer(starts, dtype=np.uint64),
                "tokens": tokens,
                "labels": np.frombuffer(labels, dtype=np.int32),
                "cut": np.frombuffer(cut, dtype=np.uint8),
            }
        )

    @staticmethod
    def read(path: Path, should_continue: ShouldContinue = lambda: True) -> EncodedSet:
        """A set that `write` has written, mapped into memory. Raises OSError, ValueError where it is damaged, and
        Stopped."""
        with open(path, "rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            header: Any = json.loads(file.read(begin - 8)) if begin < PIECE_BYTES else None
            if not isinstance(header, dict) or "__metadata__" not in header:
                raise ValueError(f"{path} is not a file of tokens")
            metadata = header.pop("__metadata__")
            check, size = zlib.crc32(json.dumps(header).encode()), begin
            while piece := file.read(PIECE_BYTES):
                check_stop(should_continue)
                check, size = zlib.crc32(piece, check), size + len(piece)
        if metadata != {"crc32": str(check)} or size != begin + header["cut"]["data_offsets"][1]:
            raise ValueError(f"{path} is damaged")
        return EncodedSet(
            {
                name: np.memmap(path, dtype, "r", begin + header[name]["data_offsets"][0], tuple(header[name]["shape"]))
                for name, (_, dtype) in DTYPES.items()
            }
        )

    def write(self, out: BinaryIO, should_continue: ShouldContinue = lambda: True) -> None:
        """Write the set as a safetensors file. Raises Stopped."""
        header, offset = dict[str, Any](), 0
        for name, (dtype, _) in DTYPES.items():
            numbers = self._arrays[name]
            header[name] = {
                "dtype": dtype,
                "shape": list(numbers.shape),
                "data_offsets": [offset, offset + numbers.nbytes],
            }
            offset += numbers.nbytes
        check = zlib.crc32(json.dumps(header).encode())
        for name in DTYPES:
            for piece in _pieces(self._arrays[name]):
                check_stop(should_continue)
                check = zlib.crc32(piece, check)
        head = json.dumps(header | {"__metadata__": {"crc32": str(check)}}).encode()
        head += b" " * (-len(head) % 8)
        out.write(len(head).to_bytes(8, "little") + head)
        for name in DTYPES:
            for piece in _pieces(self._arrays[name]):
                check_stop(should_continue)
                out.write(piece)

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    @property
    def bytes(self) -> int:
        """Bytes of memory that the arrays take."""
        return sum(numbers.nbytes for numbers in self._arrays.values())

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        packed = self._tokens[self._starts[index] : self._starts[index + 1]]
        label = int(self._labels[index])
        return EncodedRow(
            ids=(packed >> 2).tolist(),
            trained=(packed & 1).astype(bool).tolist(),
            label=None if label < 0 else label,
            cut=bool(self._cut[index] & 1),
            types=(packed >> 1 & 1).tolist() if self._cut[index] & 2 else None,
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, after cutting."""
        lengths: list[int] = np.diff(self._starts).astype(int).tolist()
        return lengths

    @property
    def trained_tokens(self) -> list[int]:
        """Label tokens of each row, as `EncodedRow.trained_tokens`."""
        counts = np.zeros(len(self), dtype=np.int64)
        for first in range(0, len(self), COUNTED_ROWS):
            starts = self._starts[first : first + COUNTED_ROWS + 1].astype(np.int64)
            trained = self._tokens[starts[0] : starts[-1]] & 1
            nonempty = np.flatnonzero(np.diff(starts))  # reduceat would take an empty row for its neighbour's token
            begins = starts[nonempty] - starts[0]
            counts[first + nonempty] = np.add.reduceat(trained, begins) - trained[begins] if len(nonempty) else 0
        return counts.tolist()


def row_sizes(rows: Sequence[EncodedRow], *, classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and labels of each row: a class is one label."""
    packed = rows if isinstance(rows, EncodedSet) else None
    lengths = packed.lengths if packed is not None else [len(row.ids) for row in rows]
    if classes:
        return np.array(lengths, dtype=np.int64), np.ones(len(rows), dtype=np.int64)
    labels = packed.trained_tokens if packed is not None else [row.trained_tokens for row in rows]
    return np.array(lengths, dtype=np.int64), np.array(labels, dtype=np.int64)


def _pieces(numbers: np.ndarray) -> Iterator[bytes]:
    width = PIECE_BYTES // numbers.itemsize
    return (numbers[start : start + width].tobytes() for start in range(0, len(numbers), width))


def tokenizing_options(settings: DataSettings, task: str) -> dict[str, Any]:
    """The settings that `tokenize_rows` needs. chat_template is `on` or `off` by then: `auto`, which needs the model's
    name (`data.template_choice`), counts as off."""
    return {
        "loss_on": settings.loss_on,
        "task": task,
        "system_prompt": settings.system_prompt,
        "chat": settings.chat_template == "on",
        "special_tokens": settings.special_tokens,
    }


def tokenize_each(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    should_continue: ShouldContinue = lambda: True,
) -> Iterator[tuple[Row, TokenizedRow | None]]:
    """Every row beside its tokens, whole.

    A conversation that the model's chat template refuses is a bad row: None where the settings leave such out, else
    DataError. Raises Stopped.
    """
    options, done = tokenizing_options(settings, task), 0
    for chunk in _chunks(rows):
        check_stop(should_continue)
        tokenized: list[TokenizedRow | None] = []
        try:
            tokenized += tokenize_rows(chunk, tokenizer, **options)
        except ConversationError:  # which one, or which ones?
            tokenized = []
            for number, row in enumerate(chunk, done + 1):
                try:
                    tokenized += tokenize_rows([row], tokenizer, **options)
                except ConversationError as error:
                    if settings.bad_rows != "skip":
                        message = f"conversation {number}: {error}; or leave such rows out with data.bad_rows skip"
                        raise DataError(message, f"conversation {number}", "a conversation it can write") from None
                    tokenized.append(None)
        yield from zip(chunk, tokenized, strict=True)
        done += len(chunk)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists of CHUNK_ROWS, or fewer where they are long."""
    chunk, length = list[Row](), 0
    for row in rows:
        chunk.append(row)
        length += characters(row)
        if len(chunk) == CHUNK_ROWS or length >= CHUNK_CHARACTERS:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def encode_each(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    should_continue: ShouldContinue = lambda: True,
) -> Iterator[tuple[Row, EncodedRow]]:
    """Every row beside its tokens, those with nothing to learn from among them; a long text once for each of its
    blocks. Raises Stopped."""
    for row, tokenized in tokenize_each(rows, tokenizer, settings, task, should_continue):
        if tokenized is not None:
            for part in tokenized.parts(settings.max_seq_length, settings.long_text):
                yield row, part


def learnable(row: EncodedRow) -> bool:
    """Whether the row has a class and tokens to read for it, or a token whose prediction counts."""
    return bool(row.ids) if row.label is not None else row.trained_tokens > 0


def encode_pairs(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    should_continue: ShouldContinue = lambda: True,
) -> Iterator[tuple[Row, EncodedRow]]:
    """Rows beside their tokens, to be looked at: rows with nothing to learn from (an empty answer) are left out, and a
    block of a long text stands beside a row with its own piece of the text. Raises Stopped."""
    for row, tokenized in tokenize_each(rows, tokenizer, settings, task, should_continue):
        parts = [] if tokenized is None else tokenized.parts(settings.max_seq_length, settings.long_text)
        for part in filter(learnable, parts):
            yield row if len(parts) == 1 else replace(row, text=tokenizer.decode(part.ids)), part


def encode_set(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    folder: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    should_continue: ShouldContinue = lambda: True,
) -> EncodedSet:
    """The rows as tokens; rows with nothing to learn from are left out.

    `on_progress` is called with the number of examples that are done; `folder` holds the temporary file of a large set.
    Raises Stopped soon after `should_continue` says no.
    """

    def examples() -> Iterator[EncodedRow]:
        done = 0
        for _, row in encode_each(rows, tokenizer, settings, task, should_continue):
            if not learnable(row):
                continue
            done += 1
            if done % PROGRESS_ROWS == 0:
                on_progress(done)
            yield row

    return EncodedSet.of(examples(), folder)
