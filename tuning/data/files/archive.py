"""The one file of rows in a zip archive.

A member's name selects it and is never used as a path. A file that accompanies rows by its name (README.md) is taken
for rows only where the archive has no other file. Several files of rows, or one that cannot be opened, are refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from tuning.core.errors import DataError

DICTIONARY_BYTES = 128 * 2**20
"""The largest dictionary, in bytes of memory, that a compressed file may need to be unpacked. The largest preset of xz
takes 64 MiB, zstd's own limit is this one; the formats allow 4 GiB, in a file of a few KiB."""
NOT_ROWS = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog)\b(?!.*\.(csv|tsv|jsonl?|parquet)$).*|.*\.(md|pdf)", re.IGNORECASE
)
"""Names of files that accompany rows and hold none."""
NAME_LETTERS = 80
_LZMA_HEADER = struct.Struct("<2xHxL")
"""The header of LZMA data in a zip: two bytes of version, the length of the properties, and in them the dictionary's
size (APPNOTE.TXT 5.8.8)."""


def open_member(file: BinaryIO, name: str) -> tuple[BinaryIO, str]:
    """The stream of the one file of rows in this archive, and its name. Raises DataError, and what zipfile raises."""
    archive = zipfile.ZipFile(file)
    info = _rows_member(archive, name)
    if info.flag_bits & 1:
        raise DataError(
            f"{_short_name(info)} in {name} is locked with a password; unpack it first", name, "an open file"
        )
    try:
        opened = archive.open(info)
    except NotImplementedError as error:
        message = f"{_short_name(info)} in {name} is packed in a way that is not read here ({error}); unpack it first"
        raise DataError(message, name, "stored, deflate, bzip2 or LZMA") from None
    if info.compress_type == zipfile.ZIP_LZMA and _dictionary_bytes(file, info) > DICTIONARY_BYTES:
        raise too_much_memory(name)
    return cast(BinaryIO, opened), _short_name(info)


def _rows_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one member that holds rows. Raises DataError where there are several, or none."""
    members = [info for info in archive.infolist() if info.filename[-1:] not in ("", "/")]
    if any(info.filename == "[Content_Types].xml" for info in members):
        raise DataError(f"{name} is an Excel workbook or another office file; save the sheet as CSV", name, "CSV")
    visible = [info for info in members if not _hidden(info)]
    # where nothing else is there, what accompanies rows by its name, or is hidden, is the file of rows
    rows = [info for info in visible if not NOT_ROWS.fullmatch(_short_name(info))] or visible or members
    if len(rows) == 1:
        return rows[0]
    raise _not_one_member(rows, name)


def _not_one_member(rows: list[zipfile.ZipInfo], name: str) -> DataError:
    """The refusal of an archive with several files of rows, or with none."""
    if not rows:
        message = f"{name} is an empty zip archive; put a file of rows into it"
        return DataError(message, 0, "one file of rows")
    listed = ", ".join(info.filename[:NAME_LETTERS] for info in rows[:5]) + (", …" if len(rows) > 5 else "")
    message = f"{name} is a zip archive of {len(rows)} files ({listed}); unpack it and choose one, or give the folder"
    return DataError(message, len(rows), "one file of rows")


def too_much_memory(name: str) -> DataError:
    """The refusal of a file whose unpacking would take more than `DICTIONARY_BYTES` of memory."""
    limit = f"{DICTIONARY_BYTES >> 20} MiB"
    message = (
        f"{name} asks for more than {limit} of memory to be unpacked (its dictionary), which is the limit here; pack "
        "it again without such a setting (xz -9 and zstd -19 are fine), or unpack it yourself and give the file"
    )
    return DataError(message, name, limit)


def _dictionary_bytes(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Bytes of the dictionary that an LZMA member needs. The file's position is restored."""
    position = file.tell()
    file.seek(info.header_offset + 26)  # of the local header, whose last four bytes are two lengths
    file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
    properties, dictionary = _LZMA_HEADER.unpack(file.read(_LZMA_HEADER.size))
    file.seek(position)
    return int(dictionary) if properties == 5 else 0  # the library refuses any other length


def _short_name(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).name[-NAME_LETTERS:]


def _hidden(info: zipfile.ZipInfo) -> bool:
    parts = [part for part in PurePosixPath(info.filename).parts if part != ".."]
    return any(part.startswith((".", "__MACOSX")) for part in parts)
