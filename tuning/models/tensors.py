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
"""Number formats of buffers such as positions and masks; a weight in one of them is packed."""
PACKED = re.compile(r"(^|\.)(qweight|qzeros|g_idx|SCB|weight_packed|weight_format|absmax|quant_map|quant_state\..*)$")
"""Names that GPTQ, AWQ, bitsandbytes and their like give the parts of a packed weight."""
_SCALES = re.compile(r"(^|\.)(weight_scale(_inv)?|input_scale|scales)$")


class HeaderError(ValueError):
    """The file is not a safetensors file, or is cut off; `expected_bytes` is then the size that it should have."""

    def __init__(self, message: str, expected_bytes: int | None = None) -> None:
        super().__init__(message)
        self.expected_bytes = expected_bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its number format as safetensors writes it, such as F32, and its sizes."""

    format: str
    shape: tuple[int, ...]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises HeaderError where it is another format or shorter than its header says."""
    size = file.stat().st_size
    with open(file, "rb") as content:
        length = int.from_bytes(content.read(8), "little")
        try:
            header: Any = json.loads(content.read(length)) if 2 <= length <= min(size, _LONGEST_HEADER) else None
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            expected = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            tensors = {
                name: Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise HeaderError("not a safetensors file") from None
    if size < expected:
        raise HeaderError("cut off", expected)
    return tensors


def packed_words(tensors: dict[str, Tensor]) -> str | None:
    """How these weights are packed, in words; None where they are plain numbers."""
    strange = {tensor.format for tensor in tensors.values()} - {*PLAIN, *WHOLE_NUMBERS}
    if strange:
        scaled = any(_SCALES.search(name) for name in tensors)
        return f"numbers in {', '.join(sorted(strange))}" + (", with scales beside them" if scaled else "")
    packed = [name for name in tensors if PACKED.search(name)]
    if packed:
        return (
            f"packed weights ({packed[0]} and {len(packed) - 1} more such tensors), as GPTQ, AWQ and the like make them"
        )
    return None


def first_names(names: Iterable[str], most: int = 3) -> str:
    """The first `most` of these names in alphabetical order for a sentence, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
