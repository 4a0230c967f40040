"""What a run does where something cannot be written, mostly for want of space on the disk: it warns and goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuning.core.disk_usage import clear_parts


@contextmanager
def warn_if_unwritten(emit: Callable[..., Any], step: int, title: str, folder: Path) -> Iterator[None]:
    """Around the writing of something into a folder of a run: a failure is a `warning` event instead of an exception.

    What was written before stays as it was, nothing half written is left, and the rest of the block is skipped. `title`
    begins the sentence, for example "The checkpoint".
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        clear_parts(folder)
        why = getattr(error, "strerror", None) or str(error)
        message = f"{title} of step {step} could not be written: {why}. The run goes on, with those written before."
        emit("warning", step=step, message=message)
