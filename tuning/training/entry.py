"""The door of this room: run a job to its end.

Comes in: a Job, an emit function, the run's Commands.  Goes out: the end state, after the events that tell the story.
Nothing heavy is imported before the job runs, so executors may import this file on the page.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable
from typing import Any

from tuning.errors import TuningError
from tuning.job import Commands, Job
from tuning.training.offline import keep_to_this_machine


def run_job(job: Job, emit: Callable[..., Any], commands: Commands) -> str:
    """Train; returns "finished", "cancelled" or "failed". A fault of the training is told as an event, not raised."""
    try:
        emit("phase", name="loading", done=0, total=None, detail="libraries")
        keep_to_this_machine()
        from tuning.training.session import Session

        return Session(job, emit, commands).run()
    except TuningError as error:
        emit("failed", message=str(error), step=getattr(error, "step", None), traceback=None)
    except MemoryError:
        emit("failed", message=_NO_MEMORY, step=None, traceback=traceback.format_exc())
    except Exception as error:
        full = "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
        message = _NO_MEMORY if full else _said(error)
        emit("failed", message=message, step=None, traceback=traceback.format_exc())
    return "failed"


def _said(error: Exception) -> str:
    """What a person reads: of a full disk, and of shapes that do not meet, mostly those of a changed config.json."""
    said = f"{type(error).__name__}: {error}"
    if "os error 28" in said or getattr(error, "errno", None) == errno.ENOSPC:
        return (
            f"There is no room left on the disk ({said.partition(chr(10))[0]}). What was written before is kept; make"
            " room (deleted runs can be deleted for good) and start again."
        )
    if isinstance(error, RuntimeError) and re.search(
        r"shapes cannot be multiplied|must match the size|size mismatch", said
    ):
        first = str(error).partition("\n")[0]
        return (
            f"the model cannot compute: {first}. If its config.json was changed, take the one saved with the weights."
        )
    return said


_NO_MEMORY = (
    "The run needed more memory than there is. A smaller micro_batch_size with more gradient_accumulation_steps keeps"
    " the same curve; gradient_checkpointing and a shorter max_seq_length help too."
)
