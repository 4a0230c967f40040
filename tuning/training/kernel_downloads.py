"""Makes the libraries of this room keep to themselves, before the first of them is imported.

Comes in: nothing.  Goes out: a process in which no library fetches code, nor keeps memory without end.  bitsandbytes
and transformers look for the `kernels` package when they load, to download compiled kernels from a hub; here that
package is not to be had.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

KEPT_KERNELS = "64"
"""Compiled kernels that torch and oneDNN keep: those of an update or two."""


def keep_to_this_machine() -> None:
    """May be called any number of times; must come before transformers, PEFT and bitsandbytes are imported."""
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # an import of it fails, as if not installed
    # bitsandbytes would then advise on each start to install that very package
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # what PEFT and transformers have to say to each other is of no use to a person
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own chatter on the terminal
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # in bf16 on a processor oneDNN compiles a kernel for each new length of a micro-batch and keeps a thousand of them,
    # 0.6 MB each: 212 MiB after 40 updates of a model that takes 47. Compiling costs no more than the search for one.
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, KEPT_KERNELS)
