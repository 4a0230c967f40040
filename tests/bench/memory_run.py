"""One run after another, each in a forked process, measured: `python -m bench.memory_run`.

It reads settings as JSON lines from standard input, and answers each with the measured peak as the run reports it, the
allocator tracer's peaks where one is preloaded (of the run, of its updates, of its evaluations), and the process's
resident peak, in bytes.
"""

from __future__ import annotations

import ctypes
import tempfile
from typing import Any

from bench.forks import each_in_a_fork


def run_and_measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Run in this process and tell what it took."""
    from tuning.plan.plan import plan_for
    from tuning.runs.events import Emitter, Event
    from tuning.training.job import Commands, Job
    from tuning.training.run import run_job

    tracer = _tracer()
    peaks, warnings, live = [0], list[str](), {"step": 0, "eval": 0, "": 0}

    def sink(event: Event) -> None:
        peaks.append(event.data.get("peak_bytes") or 0)
        if tracer:  # an update ends in a step event, an evaluation in an eval event, and nothing lies between
            kind = event.kind if event.kind in live else ""
            live[kind] = max(live[kind], tracer.lb_get(1) - start)
            tracer.lb_reset()
        if event.kind == "failed":
            warnings.append(event.data["message"])

    plan = plan_for(settings)
    start = tracer.lb_get(0) if tracer else 0
    with tempfile.TemporaryDirectory() as folder:
        end = run_job(Job(run_id="m", attempt=1, plan=plan, folder=folder), Emitter("m", 1, sink), Commands())
    return {
        "failed": None if end == "finished" else (warnings or [end])[0],
        "peak": max(peaks),
        "live": max(live.values()) if tracer else None,
        "live_update": live["step"] if tracer else None,
        "live_evaluation": live["eval"] if tracer else None,
        "resident": _highest_resident(),
    }


def _tracer() -> Any:
    library = ctypes.CDLL(None)
    if not hasattr(library, "lb_get"):
        return None
    library.lb_get.restype = ctypes.c_long
    library.lb_reset()
    return library


def _highest_resident() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    from tuning.training.kernel_downloads import block_kernel_downloads

    block_kernel_downloads()
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import tuning.training.session  # noqa: F401

    torch.set_num_threads(1)
    each_in_a_fork(run_and_measure)


if __name__ == "__main__":
    main()
