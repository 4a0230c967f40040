"""Run a job to its end, whatever happens in it.

torch and the libraries over it are imported when a job runs, so that executors may import this module with the page.
"""

from __future__ import annotations

import errno
import importlib
import re
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuning.core.errors import Stopped, TuningError, check_stop
from tuning.training.job import Commands, Job
from tuning.training.kernel_downloads import block_kernel_downloads

if TYPE_CHECKING:
    from tuning.training.session import Session

LIBRARIES = ("torch", "transformers", "peft")
STOPPED_EARLY = "Stopped before an update was made."


def run_job(job: Job, emit: Callable[..., Any], commands: Commands) -> str:
    """Train; returns "finished", "cancelled" or "failed". An error of the training is a `failed` event."""
    session = None
    try:
        emit("phase", name="loading", done=0, total=None, detail="libraries")
        block_kernel_downloads()
        for library in LIBRARIES:  # seconds each, the first time
            importlib.import_module(library)
            check_stop(lambda: not commands.stopping)
        from tuning.training.session import Session

        session = Session(job, emit, commands)
        return session.run()
    except TuningError as error:
        emit("failed", message=str(error), step=getattr(error, "step", None), traceback=None, **_saved_by(session))
    except Stopped:
        total = int(job.plan.value("total_steps"))
        end = {"step": 0, "total_steps": total, "artifact": None, "best": None, "seconds": 0.0}
        emit("cancelled", **end, message=STOPPED_EARLY, reason=STOPPED_EARLY)
        return "cancelled"
    except MemoryError:
        emit("failed", message=_NO_MEMORY, step=None, traceback=traceback.format_exc(), **_saved_by(session))
    except Exception as error:
        no_memory = "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
        message = _NO_MEMORY if no_memory else _in_words(error)
        emit("failed", message=message, step=None, traceback=traceback.format_exc(), **_saved_by(session))
    return "failed"


def _saved_by(session: Session | None) -> dict[str, Any]:
    """What a failed attempt has saved of its training, for its end event."""
    return session.saved_after_failure if session is not None else {}


def _in_words(error: Exception) -> str:
    """The error as a person reads it: a full disk and weights of another shape (of a changed config.json) explained."""
    text = f"{type(error).__name__}: {error}"
    if "os error 28" in text or getattr(error, "errno", None) == errno.ENOSPC:
        return (
            f"There is no room left on the disk ({text.partition(chr(10))[0]}). What was written before is kept; make"
            " room (deleted runs can be deleted for good) and start again."
        )
    if isinstance(error, RuntimeError) and re.search(
        r"shapes cannot be multiplied|must match the size|size mismatch", text
    ):
        first = str(error).partition("\n")[0]
        return (
            f"the model cannot compute: {first}. If its config.json was changed, take the one saved with the weights."
        )
    return text


_NO_MEMORY = (
    "The run needed more memory than there is. A smaller micro_batch_size with more gradient_accumulation_steps keeps"
    " the same curve; gradient_checkpointing and a shorter max_seq_length help too."
)
