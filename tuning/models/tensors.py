"""The tensors of safetensors files, read from their headers: names, number formats, shapes.

No weight is read, and nothing heavy imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST_HEADER = 100_000_000
PLAIN = ("F64", "F32", "F16", "BF16")
"""Number formats of weights that are loaded as they are."""
WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
"""Formats of buffers such as positions and masks; as a weight they are something packed."""
PACKED = re.compile(r"(^|\.)(qweight|qzeros|g_idx|SCB|weight_packed|weight_format|absmax|quant_map|quant_state\..*)$")
"""Names that GPTQ, AWQ, bitsandbytes and their like give the parts of a packed weight."""
_SCALES = re.compile(r"(^|\.)(weight_scale(_inv)?|input_scale|scales)$")


class HeaderError(ValueError):
    """The file is not a safetensors file, or is cut off; `wanted` is then the size it should have."""

    def __init__(self, message: str, wanted: int | None = None) -> None:
        super().__init__(message)
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its number format as safetensors writes it, such as F32, and its sizes."""

    format: str
    shape: tuple[int, ...]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises HeaderError where it is another format or shorter than its header says."""
    size = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header: Any = json.loads(opened.read(length)) if 2 <= length <= min(size, _LONGEST_HEADER) else None
            parts = {name: part for name, part in header.items() if name != "__metadata__"}
            wanted = 8 + length + max((part["data_offsets"][1] for part in parts.values()), default=0)
            found = {name: Tensor(str(part["dtype"]), tuple(map(int, part["shape"]))) for name, part in parts.items()}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise HeaderError("not a safetensors file") from None
    if size < wanted:
        raise HeaderError("cut off", wanted)
    return found


def packed_words(tensors: dict[str, Tensor]) -> str | None:
    """How these weights are packed, in words; None where they are plain numbers."""
    strange = {one.format for one in tensors.values()} - {*PLAIN, *WHOLE_NUMBERS}
    if strange:
        scaled = any(_SCALES.search(name) for name in tensors)
        return f"numbers in {', '.join(sorted(strange))}" + (", with scales beside them" if scaled else "")
    named = [name for name in tensors if PACKED.search(name)]
    if named:
        return (
            f"packed weights ({named[0]} and {len(named) - 1} more such tensors), as GPTQ, AWQ and the like make them"
        )
    return None


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of these names for a sentence, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
