"""Tables of runs that our loop does not make, with a base or an adapter in 16 bits, for `published.py`.

It reads from standard input one JSON object a line, a memory workload with the way its run is made elsewhere, and
answers each with a line: its table as `memory.build_table` makes it, or {"error": why not}. A process of its own
(`python -m bench.published_trace`), because it changes what the libraries do: others train in ways that the product has
no setting for, and needs none.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bench import child_environment
from tuning.memory.tracing.table import Table
from tuning.memory.workload import Workload

TABLE_SECONDS = 600.0
"""How long one table may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a run is made: the types of the weights."""

    base: str = "fp32"
    adapter: str = "fp32"


def traced(requests: Sequence[tuple[Workload, Way]]) -> list[Table]:
    """A table for each. Raises RuntimeError where one cannot be made."""
    questions = [json.dumps({"workload": workload.to_dict(), "way": asdict(way)}) + "\n" for workload, way in requests]
    child = subprocess.run(
        [sys.executable, "-m", "bench.published_trace", str(TABLE_SECONDS)],
        input="".join(questions),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(HF_HUB_OFFLINE="1"),
    )
    answers = [json.loads(line) for line in child.stdout.splitlines()]
    wrong = [answer["error"] for answer in answers if "error" in answer]
    if wrong or len(answers) != len(requests):
        raise RuntimeError(f"{len(requests) - len(answers) + len(wrong)} tables could not be made: {wrong[:1]}")
    return [Table.from_dict(answer) for answer in answers]


@contextmanager
def elsewhere(way: Way) -> Iterator[None]:
    """While this is on, runs are made this way."""
    import peft
    import torch
    import transformers

    from tuning.memory.tracing.cuda_dtypes import patched_attribute

    kinds = (transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification)
    with ExitStack() as changes:
        for kind in kinds:
            make = partial(_made, kind.from_config, {"bf16": torch.bfloat16, "fp32": torch.float32}[way.base])
            changes.enter_context(patched_attribute(kind, "from_config", make))
        wrap = partial(peft.get_peft_model, autocast_adapter_dtype=way.adapter == "fp32")
        changes.enter_context(patched_attribute(peft, "get_peft_model", wrap))
        yield


def _made(make: Any, kind: Any, config: Any, **more: Any) -> Any:
    return make(config, **(more | {"dtype": kind}))


def main() -> None:
    from tuning.memory.tracing.build_table import answer_questions, build_table
    from tuning.training.kernel_downloads import block_kernel_downloads

    block_kernel_downloads()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    def table_of(request: dict[str, Any]) -> Table:
        with elsewhere(Way(**request["way"])):
            return build_table(Workload(**request["workload"]))

    gc.freeze()
    answer_questions(table_of)


if __name__ == "__main__":
    main()
