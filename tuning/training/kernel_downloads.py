"""Settings of torch, transformers, PEFT and bitsandbytes that must be made before the first of them is imported.

bitsandbytes and transformers look for the `kernels` package when they load, to download compiled kernels from a hub;
in this process importing that package fails. Some warnings are silenced, and caches of kernels are limited.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

CACHED_KERNELS = "64"
"""How many compiled kernels torch and oneDNN cache: those of an update or two."""


def block_kernel_downloads() -> None:
    """Block the download of kernels in this process. Call it before transformers, PEFT or bitsandbytes are imported.

    It may be called any number of times.
    """
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # an import of it fails, as if not installed
    # bitsandbytes would then advise on each start to install that very package
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # PEFT and transformers warn about each other, which is of no use to a person
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own messages on the terminal
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # in bf16 on a processor oneDNN compiles a kernel for each new length of a micro-batch and keeps a thousand of them,
    # 0.6 MB each: 212 MiB after 40 updates of a model that takes 47. Compiling costs no more than the search for one.
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, CACHED_KERNELS)
