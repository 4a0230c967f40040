"""What a run does where something cannot be written, mostly for want of room on the disk: it says so and goes on.

In: what is being written, and how to tell. Out: nothing half written, what was written before as it was, and a
`warning`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuning.core.disk_usage import clear_parts


@contextmanager
def written_or_told(emit: Callable[..., Any], step: int, what: str, folder: Path) -> Iterator[None]:
    """Around the writing of `what` into a folder of this run; what comes after the failed write is left out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        clear_parts(folder)
        why = getattr(error, "strerror", None) or str(error)
        message = f"{what} of step {step} could not be written: {why}. The run goes on, with those written before."
        emit("warning", step=step, message=message)
