"""The content of compressed files of rows: gzip, bzip2, xz, zstd, and a zip archive with one file in it.

It goes into a temporary file, in memory while it is small; where the head is enough, only the beginning is unpacked. A
file that is damaged, or a small one that would fill the disk, is refused. Formats inside (Parquet, tar) are detected by
the reader.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tuning.core.errors import DataError
from tuning.data.files.archive import DICTIONARY_BYTES, open_member, too_much_memory
from tuning.data.files.formats import packing_of
from tuning.data.files.progress import reading

PIECE_BYTES = 2**20
MEMORY_BYTES = 32 * 2**20
LEAST_LIMIT_BYTES, MOST_TIMES, MOST_BYTES = 2**30, 200, 64 * 2**30
"""A file may unpack to `MOST_TIMES` its size, at least to the first and at most to the last of these: text shrinks five
to twenty times, and what shrinks much more is made to fill a disk."""
SPARE_BYTES = 2**30
"""Bytes of the disk that unpacking leaves free."""
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    struct.error,
    LookupError,
)
"""What the libraries raise at broken bytes; ArrowInvalid is a ValueError."""
_MEMORY_WORDS = ("Memory usage limit", "too much memory")
"""How liblzma and zstd say that a file asks for more memory than they may take."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The content of a packed file; `whole` where it was read to its end, and `digest` its SHA-256 then."""

    file: BinaryIO
    words: str
    """How the file was packed, in words for a person."""
    whole: bool
    digest: str
    name: str
    """The name of the file inside: that of an archive's member, else of the packed file itself."""


def unpack(file: BinaryIO, kind: str, path: Path, size: int, most: int | None = None) -> Unpacked:
    """The content of an open packed file of `size` bytes, or about its first `most` bytes. Raises DataError."""
    name, limit, digest = path.name, _limit(size), hashlib.sha256()
    out = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115  held as long as its rows
    packed, done, whole = _PositionedFile(file), 0, False
    with reading(str(path), name, "unpacking", "bytes", size) as on_progress:
        try:
            stream, words, member = _stream(packed, kind, name)
            while most is None or done < most:
                piece = stream.read(PIECE_BYTES)
                if not piece:
                    whole = True
                    break
                done += len(piece)
                if done > limit:
                    raise _too_large(name, size, limit)
                digest.update(piece)
                out.write(piece)
                on_progress(min(size, packed.position))
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno:  # the disk, not the file
                raise
            if _wants_memory(error):
                raise too_much_memory(name) from None
            message = (
                f"{name} is a damaged {kind} file: after {done / 2**20:,.1f} MiB of rows it cannot be unpacked "
                f"({str(error) or type(error).__name__:.100}); fetch or pack it again"
            )
            raise DataError(message, name, "a whole file") from None
    if whole and not done:
        raise DataError(f"{name} is empty inside and has no rows; give at least one", name)
    out.seek(0)
    return Unpacked(cast(BinaryIO, out), words, whole, digest.hexdigest() if whole else "", member)


def beginning(content: bytes, name: str, most: int) -> bytes:
    """Up to `most` bytes unpacked from the first bytes of a packed file; the content of any other file as it is.

    Raises DataError where the file needs too much memory.
    """
    kind, unpacked = packing_of(content), bytearray()
    if kind is None or kind == "zip":
        return content
    try:
        stream, _, _ = _stream(_PositionedFile(io.BytesIO(content)), kind, name)
        while len(unpacked) < most and (piece := stream.read(4096)):
            unpacked += piece
    except _DAMAGED as error:  # here the beginning ends
        if _wants_memory(error):
            raise too_much_memory(name) from None
    return bytes(unpacked)


def _wants_memory(error: Exception) -> bool:
    """Whether a library refuses a file because it needs more memory than allowed."""
    return any(words in str(error) for words in _MEMORY_WORDS)


class _PositionedFile(io.RawIOBase):
    """A file with the position up to which it has been read, for libraries that read ahead of what they return."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.position = file, 0
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.position = self._file.tell()
        return block


def _stream(file: _PositionedFile, kind: str, name: str) -> tuple[BinaryIO, str, str]:
    """The unpacked stream, how it was packed in words, and the name of the file inside."""
    if kind == "zip":
        stream, member = open_member(cast(BinaryIO, file), name)
        return stream, f"{member} in a zip archive", member
    return cast(BinaryIO, _OPENERS[kind](cast(BinaryIO, file))), f"packed with {kind}", name


def _zstd(file: BinaryIO) -> BinaryIO:
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))


class _Xz:
    """The content of an xz file, unpacked within a memory limit, which lzma.LZMAFile does not have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._packed = file, b""
        self._stream: lzma.LZMADecompressor | None = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, and at least one; none at the end. Raises EOFError where the file is cut off."""
        while True:
            if self._stream is None:  # zero bytes may stand between streams
                while not self._packed.strip(b"\0"):
                    self._packed = self._file.read(PIECE_BYTES)
                    if not self._packed:
                        return b""
                limit = DICTIONARY_BYTES + 2**20  # and the library's own tables
                self._packed = self._packed.lstrip(b"\0")
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit)
            elif self._stream.needs_input:
                self._packed = self._file.read(PIECE_BYTES)
                if not self._packed:
                    raise EOFError("it is cut off")
            block = self._stream.decompress(self._packed, size)
            self._packed = b""
            if self._stream.eof:
                self._packed, self._stream = self._stream.unused_data, None
            if block:
                return block


_OPENERS: dict[str, Callable[[BinaryIO], object]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "bzip2": bz2.BZ2File,
    "xz": _Xz,
    "zstd": _zstd,
}


def _limit(size: int) -> int:
    """Bytes to which a file of `size` bytes may unpack."""
    free = shutil.disk_usage(tempfile.gettempdir()).free - SPARE_BYTES
    return min(max(LEAST_LIMIT_BYTES, MOST_TIMES * size), MOST_BYTES, max(0, free))


def _too_large(name: str, size: int, limit: int) -> DataError:
    """The refusal of a file that unpacks to more than the limit."""
    most = f"{limit / 2**20:,.0f} MiB"
    message = (
        f"{name} has {size / 2**20:,.1f} MiB and unpacks to more than {most}, which is the limit for it here "
        f"({MOST_TIMES} times its size and at least {LEAST_LIMIT_BYTES >> 20:,} MiB, at most {MOST_BYTES >> 30} GiB, "
        "and what the disk has room for); if it is meant to, unpack it yourself and give the file"
    )
    return DataError(message, size, most)
