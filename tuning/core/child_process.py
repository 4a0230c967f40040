"""A child process that answers questions, one JSON line each: for work that may never end, want all the memory, or
change the globals of a library.

Comes in: the module to run, and questions as dicts.  Goes out: answers as dicts, or None where the child ended instead.
The child watches itself: it ends where an answer takes too long, or where nobody has asked for a while, also when this
process is gone by then.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

IDLE_SECONDS = 20.0
"""How long a child waits for more before it ends: importing the libraries again costs some seconds."""
_ALL: weakref.WeakSet[Child] = weakref.WeakSet()


class Child:
    """`python -m MODULE SECONDS`, which calls `serve`. One question at a time; one that has ended is replaced."""

    def __init__(self, module: str, seconds: float) -> None:
        """`seconds` is how long one answer may take."""
        self._module, self._seconds = module, seconds
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        _ALL.add(self)

    def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None where the child has ended without one. Waits for whoever has asked before."""
        text = json.dumps(question) + "\n"
        with self._lock:
            began = time.monotonic()
            answer = self._ask(text)
            if answer is None and time.monotonic() - began < self._seconds:
                answer = self._ask(text)  # it was about to end, because nobody had asked
            return answer

    def _ask(self, text: str) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = self._started()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(text)
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        except BaseException:  # an interrupt: the answer still to come would be taken for the next one's
            self._end()
            raise
        if not line.endswith("\n"):
            self._end()
            return None
        return dict(json.loads(line))

    def kill(self) -> None:
        """End the child now, from any thread: who waits for an answer is given None."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the child and clear up after it."""
        self.kill()
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(root), *filter(None, [environment.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment | {"PYTHONPATH": path},
        )


@atexit.register
def _close_all() -> None:
    for child in _ALL:
        child.kill()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], memory_bytes: int | None = None) -> None:
    """Answer the lines of standard input until it ends; what `answer` raises is told as {"error": …}.

    The process ends where one answer takes more seconds than its command line says, or no question comes for
    `IDLE_SECONDS`. `memory_bytes` is what its address space may grow to, where the system can hold it to that.
    """
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    while True:
        more_time(IDLE_SECONDS)
        line = sys.stdin.readline()
        if not line:
            return
        more_time()
        try:
            with redirect_stdout(sys.stderr):
                found = answer(json.loads(line))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


def more_time(seconds: float | None = None) -> None:
    """In the child: what it does now may take so long from now on, else as long as its command line says. The process
    ends when that is over, even where it is busy outside of Python."""
    faulthandler.dump_traceback_later(float(sys.argv[1]) if seconds is None else seconds, exit=True, file=sys.stderr)


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
