"""Tables of runs that our loop does not make, with a base in 16 bits or a card's dropout, for `published.py`.

Comes in: on standard input, one JSON object a line: a memory subject, with the way its run is made elsewhere.  Goes
out: for each, one line, its table as `memory.build_table` makes it, or {"error": why not}.  A process of its own
(`python -m tuning.bench.published_trace`), because it changes what the libraries do: others train in ways that the
product has no setting for, and needs none.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tuning.memory.layers import every_layer
from tuning.memory.subject import Subject
from tuning.memory.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a run is made: the types of the weights, whether on a card, and whether every layer is traced.

    `whole` is for prefixes: what they keep for a layer is made before all layers, so that some do not stand for others.
    """

    base: str = "fp32"
    adapter: str = "fp32"
    card: bool = True
    whole: bool = False


def traced(asked: Sequence[tuple[Subject, Way]]) -> list[Table]:
    """A table for each. Raises RuntimeError where one cannot be made."""
    lines = [json.dumps({"subject": subject.to_dict(), "way": asdict(way)}) for subject, way in asked]
    out = subprocess.run(
        [sys.executable, "-m", "tuning.bench.published_trace"], input="\n".join(lines), text=True, check=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    found = [json.loads(line) for line in out.splitlines()]
    wrong = [one["error"] for one in found if "error" in one]
    if wrong or len(found) != len(asked):
        raise RuntimeError(f"{len(asked) - len(found) + len(wrong)} tables could not be made: {wrong[:1]}")
    return [Table.from_dict(one) for one in found]


@contextmanager
def elsewhere(way: Way) -> Iterator[None]:
    """While this is on, runs are made this way.

    On a card dropout keeps a byte an element where a processor keeps a number, and under autocast softmax and layer
    norm are computed in fp32 (PyTorch documentation, CUDA ops that autocast to float32).
    """
    import peft
    import torch
    import transformers
    from torch.nn import functional

    from tuning.memory import build_table, torch_phantom

    kinds = (transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification)
    with ExitStack() as changes:
        for kind in kinds:
            make = partial(_made, kind.from_config, {"bf16": torch.bfloat16, "fp32": torch.float32}[way.base])
            changes.enter_context(_instead(kind, "from_config", make))
        key = torch_phantom._key  # sizes are remembered; a tensor's type is the default's, which a 16-bit model changes
        changes.enter_context(_instead(torch_phantom, "_key", lambda value: (torch.get_default_dtype(), key(value))))
        wrap = partial(peft.get_peft_model, autocast_adapter_dtype=way.adapter == "fp32")
        changes.enter_context(_instead(peft, "get_peft_model", wrap))
        if way.card:
            for name in ("softmax", "layer_norm"):
                changes.enter_context(_instead(functional, name, partial(_in_32_bits, getattr(functional, name))))
            changes.enter_context(_instead(functional, "dropout", _dropout))
        if way.whole:
            changes.enter_context(
                _instead(build_table, "layout_of", lambda config: every_layer(build_table.layers_of(config)))
            )
        yield


@contextmanager
def _instead(owner: Any, name: str, new: Any) -> Iterator[None]:
    own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _made(make: Any, kind: Any, config: Any, **more: Any) -> Any:
    return make(config, **(more | {"dtype": kind}))


def _in_32_bits(function: Any, x: Any, *args: Any, **more: Any) -> Any:
    import torch

    return function(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **more)


def _dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    import torch

    return torch.native_dropout(x, p, training)[0] if training and p else x


def main() -> None:
    from tuning.memory.build_table import build_table
    from tuning.training.offline import keep_to_this_machine

    keep_to_this_machine()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with elsewhere(Way(**asked["way"])):
                answer: dict[str, Any] = build_table(Subject(**asked["subject"])).to_dict()
        except Exception as error:  # whatever a library says about a model it cannot build
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
