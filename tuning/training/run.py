"""The door of this room: run a job to its end.

Comes in: a Job, an emit function, the run's Commands.  Goes out: the end state, after the events that tell the story.
Nothing heavy is imported before the job runs, so executors may import this file on the page.
"""

from __future__ import annotations

import errno
import importlib
import re
import traceback
from collections.abc import Callable
from typing import Any

from tuning.core.errors import Stopped, TuningError, check_stop
from tuning.training.job import Commands, Job
from tuning.training.kernel_downloads import keep_to_this_machine

LIBRARIES = ("torch", "transformers", "peft")
STOPPED_EARLY = "Stopped before an update was made."


def run_job(job: Job, emit: Callable[..., Any], commands: Commands) -> str:
    """Train; returns "finished", "cancelled" or "failed". A fault of the training is told as an event, not raised."""
    session = None
    try:
        emit("phase", name="loading", done=0, total=None, detail="libraries")
        keep_to_this_machine()
        for library in LIBRARIES:  # seconds each, the first time
            importlib.import_module(library)
            check_stop(lambda: not commands.stopping)
        from tuning.training.session import Session

        session = Session(job, emit, commands)
        return session.run()
    except TuningError as error:
        emit("failed", message=str(error), step=getattr(error, "step", None), traceback=None, **_left(session))
    except Stopped:
        total = int(job.plan.value("total_steps"))
        end = {"step": 0, "total_steps": total, "artifact": None, "best": None, "seconds": 0.0}
        emit("cancelled", **end, message=STOPPED_EARLY, reason=STOPPED_EARLY)
        return "cancelled"
    except MemoryError:
        emit("failed", message=_NO_MEMORY, step=None, traceback=traceback.format_exc(), **_left(session))
    except Exception as error:
        full = "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
        message = _NO_MEMORY if full else _said(error)
        emit("failed", message=message, step=None, traceback=traceback.format_exc(), **_left(session))
    return "failed"


def _left(session: Any) -> dict[str, Any]:
    """What a failed attempt has left of its training; nothing where it had not begun."""
    return session.left if session is not None else {}


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
