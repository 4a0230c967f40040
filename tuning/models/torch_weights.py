"""The program of a child process: how `transformers` would load a file's tensors, without reading one.

Each line on standard input is a question as JSON (a model folder, its files, a task), and is answered with one line on
standard output: the report, or {"error": why the model cannot be made}. Model and tensors have sizes and no numbers, so
that a model of any size is compared at the same cost. Loading changes library globals, which must not happen beside a
run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tuning.core.child_process import serve
from tuning.models.tensors import WHOLE_NUMBERS, Tensor, read_tensors

_IDLE = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|(attn|attention|self_attn)\.(bias|mask)|rotary_emb\..*)$"
)
"""Buffers that older versions saved with the body, and that are computed now."""
_FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CHUNK = 4096
"""Rows of a matrix that are compared at once."""


def compare(folder: str, files: Sequence[str], task: str) -> dict[str, Any]:
    """The report of a folder: the model is built from its config.json, and the files' headers are put into it."""
    import transformers

    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_tensors(Path(folder) / file)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model_class = _class_of(config, task)
    state = {
        name: torch.empty(tensor.shape, dtype=_FORMATS.get(tensor.format, torch.int64), device="meta")
        for name, tensor in tensors.items()
    }
    model, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state,
        device_map="meta",
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return report_of(model, info, tensors) | {"untied": _untied(model, tensors, folder, files)}


def _class_of(config: Any, task: str) -> Any:
    """The class that the library's own table gives for this task."""
    from transformers.models.auto import auto_factory, modeling_auto

    name = "CAUSAL_LM" if task == "causal_lm" else "SEQUENCE_CLASSIFICATION"
    model_class: Any = auto_factory._get_model_class(config, getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING"))
    return model_class


def report_of(model: Any, info: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The report of a load as plain data; `info` is what `output_loading_info` gives."""
    body, names = model.base_model_prefix + ".", set(model.state_dict())
    modules = {name for name, _ in getattr(model, model.base_model_prefix, model).named_children()}
    classes = "ForSequenceClassification" in type(model).__name__
    integers = {name for name, tensor in tensors.items() if tensor.format in WHOLE_NUMBERS}
    trained = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    unexpected = {name for name in info["unexpected_keys"] if not _IDLE.search(name)}
    return {
        "class": type(model).__name__,
        "missing": sorted(info["missing_keys"]),
        "mismatched": sorted([name, list(given), list(expected)] for name, given, expected in info["mismatched_keys"]),
        "unexpected": sorted(unexpected),
        "in_body": sorted(name for name in unexpected if name.removeprefix(body).split(".")[0] in modules),
        "head": sorted(name for name in names if not name.startswith(body)) if classes else [],
        "whole_numbers": sorted(integers & (trained | {name.removeprefix(body) for name in trained}) - unexpected),
        "untied": None,
    }


def _untied(model: Any, tensors: dict[str, Tensor], folder: str, files: Sequence[str]) -> list[str] | None:
    """Two names that config.json ties together and that the files hold with different numbers; None where all agree."""
    body = model.base_model_prefix + "."
    for target, source in model.all_tied_weights_keys.items():
        pair = [name if name in tensors else name.removeprefix(body) for name in (target, source)]
        if all(name in tensors for name in pair) and not _equal(pair, folder, files):
            return pair
    return None


def _equal(pair: Sequence[str], folder: str, files: Sequence[str]) -> bool:
    """Whether two tensors of the files hold the same numbers, read a part at a time."""
    from safetensors import safe_open

    file_of: dict[str, str] = {}
    for file in files:
        with safe_open(str(Path(folder) / file), framework="pt") as content:
            file_of |= dict.fromkeys(content.keys(), str(Path(folder) / file))
    with safe_open(file_of[pair[0]], "pt") as first_file, safe_open(file_of[pair[1]], "pt") as second_file:
        first, second = first_file.get_slice(pair[0]), second_file.get_slice(pair[1])
        if first.get_shape() != second.get_shape():
            return False
        rows = first.get_shape()[0]
        return all(
            torch.equal(first[start : start + _CHUNK], second[start : start + _CHUNK])
            for start in range(0, rows, _CHUNK)
        )


def main() -> None:
    """Answer until standard input ends."""
    import transformers

    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    serve(lambda question: compare(**question))


if __name__ == "__main__":
    main()
