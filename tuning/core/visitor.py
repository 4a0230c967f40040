"""The visitor of a request: which runs that person may see and change, and which files may be read for them.

The web's guard sets a `Visitor` for the length of a request, and whatever lists runs or opens a path asks for it. Where
none is set, in the command line and in a run's own thread, it is the person who runs the program, who may do
everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SPECIAL_FOLDERS = ("/proc", "/sys")
"""Folders of things that look like files, but reading them may never end."""

Kind = Literal["data", "models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A person on whose behalf something is done."""

    owner: str | None = None
    """The owner of the runs that this visitor may see. None is the person who runs the program, to whom all runs and
    all readable files are open."""
    data: tuple[Path, ...] = ()
    """Folders whose files may be read as rows, resolved; for an owner, their own uploads among them."""
    models: tuple[Path, ...] = ()
    """Folders whose models may be opened, resolved."""

    @property
    def title(self) -> str:
        """The visitor's name in the log."""
        return "the holder" if self.owner is None else f"browser {self.owner}"


HOLDER = Visitor()
_current: ContextVar[Visitor] = ContextVar("visitor", default=HOLDER)


def current_visitor() -> Visitor:
    """The visitor for whom the calling code runs."""
    return _current.get()


@contextmanager
def acting_for(visitor: Visitor) -> Iterator[None]:
    """Within the block, `current_visitor` is this one, also in threads that the web's framework takes for it."""
    before = _current.set(visitor)
    try:
        yield
    finally:
        _current.reset(before)


def path_refusal(path: Path | str, kind: Kind) -> str | None:
    """Why this path is not read for the current visitor, as the end of a sentence with its fix; None where it may be.

    Links are followed first; nothing is opened.
    """
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a loop of links, a zero byte: opening it gives the error
        return None if current_visitor().owner is None else _refusal_of(kind)
    special = next((folder for folder in SPECIAL_FOLDERS if real.is_relative_to(folder)), None)
    if special is not None:
        return f"lies in {special}, where reading may never end; copy what you need to a file of its own"
    visitor = current_visitor()
    allowed = visitor.data if kind == "data" else visitor.models
    if visitor.owner is None or any(real.is_relative_to(folder) for folder in allowed):
        return None
    return _refusal_of(kind)


def _refusal_of(kind: Kind) -> str:
    """The refusal of a path outside the allowed folders, equal for files that exist and files that do not: it must not
    give away which exist."""
    if kind == "data":
        return (
            "is not read for you: upload the file here, take bundled data, or ask whoever started this server to name "
            "its folder with --data DIR"
        )
    return (
        "is not opened for you: take a bundled model, or ask whoever started this server to name it with --models DIR"
    )


def special_file(folder: Path | str) -> str | None:
    """The name of an entry in a folder that is neither file nor folder, such as a pipe or a device; None where all are.

    Nothing is opened.
    """
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.is_dir() and not entry.is_file() and os.path.exists(entry.path)
            ]
    except OSError:
        return None
    return min(names, default=None)
