"""A child process that answers questions, one JSON line each.

It is for work that may never end, may want all the memory, or changes the globals of a library. Questions and answers
are dicts; where the child ends without an answer, the answer is None. The child watches itself: it ends where an answer
takes too long, or where no question has come for a while, even when its parent process is gone by then.
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
"""How long a child waits for the next question before it ends: importing the libraries again costs some seconds."""
_CHILDREN: weakref.WeakSet[Child] = weakref.WeakSet()


class Child:
    """A process `python -m MODULE SECONDS`, which calls `serve`; it is started again where it has ended.

    It answers one question at a time; threads that ask at the same moment wait for each other.
    """

    def __init__(self, module: str, seconds: float) -> None:
        """`seconds` is how long one answer may take."""
        self._module, self._seconds = module, seconds
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        _CHILDREN.add(self)

    def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a question; None where the child ended without one."""
        text = json.dumps(question) + "\n"
        with self._lock:
            began = time.monotonic()
            answer = self._ask(text)
            if answer is None and time.monotonic() - began < self._seconds:
                answer = self._ask(text)  # it was ending, because no question had come
            return answer

    def _ask(self, text: str) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = self._start_process()
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
        """End the child now, from any thread: a caller that waits for an answer gets None."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the child and close its pipes."""
        self.kill()
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def _start_process(self) -> subprocess.Popen[str]:
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
    for child in _CHILDREN:
        child.kill()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], memory_bytes: int | None = None) -> None:
    """Answer each line of standard input until it ends; where `answer` raises, the reply is {"error": …}.

    The process ends where one answer takes more seconds than its command line says, or no question comes for
    `IDLE_SECONDS`. `memory_bytes` limits its address space, where the operating system has such a limit.
    """
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    while True:
        extend_deadline(IDLE_SECONDS)
        line = sys.stdin.readline()
        if not line:
            return
        extend_deadline()
        try:
            with redirect_stdout(sys.stderr):
                reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


def extend_deadline(seconds: float | None = None) -> None:
    """Called in the child: end the process `seconds` from now, or as many as its command line says, unless this is
    called again before. It ends even where it is busy outside of Python."""
    faulthandler.dump_traceback_later(float(sys.argv[1]) if seconds is None else seconds, exit=True, file=sys.stderr)


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
