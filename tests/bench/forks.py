"""Answers to JSON lines, each worked out in a process of its own that has the libraries imported already."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def each_in_a_fork(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each JSON line of standard input with one: what `work` makes of it in a process of its own.

    A fork of this one, so what is imported here is there; what goes wrong in it comes back as `failed`.
    """
    for line in sys.stdin:
        into, out = os.pipe()
        if os.fork() == 0:
            try:
                answer = work(json.loads(line))
            except Exception as error:  # whatever the libraries say of such a model
                answer = {"failed": f"{type(error).__name__}: {error}"}
            os.write(out, json.dumps(answer).encode())
            os._exit(0)
        os.close(out)
        with os.fdopen(into, "rb") as pipe:
            output = pipe.read().decode()
        os.wait()
        print(output or json.dumps({"failed": "the process ended"}), flush=True)
