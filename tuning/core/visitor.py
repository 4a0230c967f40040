"""Who asks: which runs that person may see and change, and which files may be read for them.

In: a `Visitor`, set for the length of a request by the web's guard. Out: answers to whatever lists runs or opens a
path. Where nothing is set, in the command line and in a run's own thread, it is whoever runs the program: everything.
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
"""What lies there looks like files, and reading it may never end."""

Kind = Literal["data", "models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody on whose behalf something is done."""

    owner: str | None = None
    """Whose runs they are. None is whoever runs the program, to whom all runs and all readable files are open."""
    data: tuple[Path, ...] = ()
    """Folders whose files may be read as rows, resolved; for an owner, their own uploads among them."""
    models: tuple[Path, ...] = ()
    """Folders whose models may be opened, resolved."""

    @property
    def title(self) -> str:
        """For the log."""
        return "the holder" if self.owner is None else f"browser {self.owner}"


HOLDER = Visitor()
_asking: ContextVar[Visitor] = ContextVar("asking", default=HOLDER)


def visitor() -> Visitor:
    """Who asks just now."""
    return _asking.get()


@contextmanager
def asking_as(one: Visitor) -> Iterator[None]:
    """What is done in the block, also in threads that the web's framework takes for it, is done for this visitor."""
    before = _asking.set(one)
    try:
        yield
    finally:
        _asking.reset(before)


def path_refusal(path: Path | str, kind: Kind) -> str | None:
    """Why this path is not read for who asks, as the end of a sentence with its fix; None where it may be.

    Links are followed first; nothing is opened.
    """
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a loop of links, a zero byte: whoever opens it says so
        return None if visitor().owner is None else _not_named(kind)
    special = next((folder for folder in SPECIAL_FOLDERS if real.is_relative_to(folder)), None)
    if special is not None:
        return f"lies in {special}, where reading may never end; copy what you need to a file of its own"
    asks = visitor()
    named = asks.data if kind == "data" else asks.models
    if asks.owner is None or any(real.is_relative_to(folder) for folder in named):
        return None
    return _not_named(kind)


def _not_named(kind: Kind) -> str:
    """The same for what is there and what is not, so that it tells nobody what is there."""
    if kind == "data":
        return (
            "is not read for you: upload the file here, take bundled data, or ask whoever started this server to name "
            "its folder with --data DIR"
        )
    return (
        "is not opened for you: take a bundled model, or ask whoever started this server to name it with --models DIR"
    )


def special_file(folder: Path | str) -> str | None:
    """The name of something in a folder that is neither file nor folder, a pipe or a device; None where there is none.

    Nothing is opened.
    """
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if not one.is_dir() and not one.is_file() and os.path.exists(one.path)]
    except OSError:
        return None
    return min(names, default=None)
