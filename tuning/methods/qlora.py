"""QLoRA: LoRA beside a frozen base whose linear layers are stored in 4 bits."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tuning.core.errors import Problem
from tuning.methods.base import LoadingCode, MethodInputs
from tuning.methods.lora import INITS, MOVES_THE_BASE, LoraSettings, LowRankMethod, lora_model
from tuning.methods.network import linears
from tuning.models.base_model import ModelShape
from tuning.models.families import UNQUANTIZED

BLOCK, OUTER_BLOCK = 64, 256
"""Weights that share a scale, and scales that share one under double quantization (bitsandbytes)."""
_FILE = "quantization.json"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class QloraSettings(LoraSettings):
    """LoRA's fields, and how the base is stored."""

    name: str = "qlora"
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values a weight can take: nf4 suits weights spread as a bell curve, fp4 is coarser there."""
    double_quant: bool = True
    """Store the scales in 8 bits too: 4.13 bits a weight instead of 4.5, at hardly any loss."""
    compute_dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What products are computed in after unpacking: auto takes fp32 on a processor and bf16 on CUDA."""


class Qlora(LowRankMethod[QloraSettings]):
    name = "qlora"
    title = "QLoRA"
    card = (
        "LoRA beside a base stored in 4 bits, unpacked layer by layer as it is used; the adapter stays in high "
        "precision. Makes the weights' share of memory about an eighth, at no gain in speed; on a model of a few "
        "million weights there is hardly anything to save."
    )
    source = "Dettmers et al. 2023, arXiv 2305.14314"
    settings = QloraSettings
    learning_rate_reason = "as LoRA's: the base is coarser, the adapter is the same"
    merge_tolerance = 1e-2
    shapes_adapter = ("r", "alpha", "target_modules", "rslora", "dora", "quant_type", "double_quant")
    cheaper_methods: tuple[str, ...] = ()
    tradeoff = "weights in 4 bits, a bit rougher and slower"

    def resolve_auto(self, settings: QloraSettings, device: str) -> QloraSettings:
        auto = "bf16" if device == "cuda" else "fp32"
        return settings.replace(compute_dtype=auto) if settings.compute_dtype == "auto" else settings

    def fallback_dtype(self, settings: QloraSettings, dtypes: tuple[str, ...]) -> QloraSettings:
        return (
            settings if settings.compute_dtype != "auto" or "bf16" in dtypes else settings.replace(compute_dtype="fp32")
        )

    def weight_bytes(self, shape: ModelShape, settings: QloraSettings, class_count: int) -> int:
        packed = shape.num_layers * sum(linear.into * linear.out for linear in linears(shape))
        scales = 1 / BLOCK + 4 / (BLOCK * OUTER_BLOCK) if settings.double_quant else 4 / BLOCK
        return round(packed * (0.5 + scales)) + 4 * (self.total_parameters(shape, settings, class_count) - packed)

    def problems(self, inputs: MethodInputs, settings: QloraSettings) -> list[Problem]:
        problems = [] if settings.init in MOVES_THE_BASE else super().problems(inputs, settings)
        if find_spec("bitsandbytes") is None:
            message = "4-bit weights need bitsandbytes, which is not installed here; use lora, or install it"
            problems.append(Problem("method.name", settings.name, "a machine with bitsandbytes", message))
        if settings.compute_dtype not in ("auto", *inputs.dtypes):
            limit = ", ".join(("auto", *inputs.dtypes))
            message = f"{inputs.device_name} does not compute in {settings.compute_dtype}; use one of {limit}"
            problems.append(Problem("method.compute_dtype", settings.compute_dtype, limit, message))
        if self.resolve_auto(settings, inputs.device).compute_dtype not in inputs.dtypes:
            message = f"{inputs.device_name} does not compute in bf16, which auto takes on CUDA; set fp16 or fp32"
            problems.append(Problem("method.compute_dtype", settings.compute_dtype, ", ".join(inputs.dtypes), message))
        if settings.init in MOVES_THE_BASE:
            limit = ", ".join(name for name in INITS if name not in MOVES_THE_BASE)
            message = f"{settings.init} changes the base weights, which 4 bits would round away; set init to default"
            problems.append(Problem("method.init", settings.init, limit, message))
        return problems

    def load_options(self, settings: QloraSettings, device: str) -> dict[str, Any]:
        way = {"quant_type": settings.quant_type, "double_quant": settings.double_quant}
        return _options(way | {"compute_dtype": self.resolve_auto(settings, device).compute_dtype}, device)

    def apply(self, model: Any, settings: QloraSettings, task: str) -> Any:
        keep_differentiable(model)
        return lora_model(model, settings, task, settings.init)

    def save(self, model: Any, folder: Path) -> None:
        super().save(model, folder)
        way = model.get_base_model().config.quantization_config
        quantization = {
            "quant_type": way.bnb_4bit_quant_type,
            "double_quant": way.bnb_4bit_use_double_quant,
            "compute_dtype": {dtype: name for name, dtype in _DTYPES.items()}[
                str(way.bnb_4bit_compute_dtype).removeprefix("torch.")
            ],
        }
        (folder / _FILE).write_text(json.dumps(quantization), encoding="utf-8")

    def load(self, model: Any, folder: Path) -> Any:
        """The base is loaded again in the 4 bits the adapter was trained beside."""
        way = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        options = _options(way, model.device.type)
        again = type(model).from_pretrained(
            model.config.name_or_path,
            config=model.config,
            local_files_only=True,
            use_safetensors=True,
            dtype=model.dtype,
            **options,
        )
        keep_differentiable(again)
        return super().load(again, folder)

    def loading_code(self, settings: QloraSettings, device: str) -> LoadingCode:
        way = (
            f'load_in_4bit=True, bnb_4bit_quant_type="{settings.quant_type}", '
            f"bnb_4bit_use_double_quant={settings.double_quant},\n"
            f'    bnb_4bit_compute_dtype="{_DTYPES[self.resolve_auto(settings, device).compute_dtype]}",\n'
            f"    llm_int8_skip_modules={list(UNQUANTIZED)!r},"
        ).replace("'", '"')
        return LoadingCode(
            imports=("BitsAndBytesConfig",),
            before=f"four_bits = BitsAndBytesConfig(\n    {way}\n)\n",
            arguments=", quantization_config=four_bits",
            after=(
                "for module in base.modules():  # bitsandbytes 0.50 computes wrongly on some processors otherwise\n"
                '    if hasattr(module, "support_avx512bf16_for_cpu"):\n'
                "        module.support_avx512bf16_for_cpu = False\n"
            ),
        )

    def merge(self, model: Any) -> Any | None:
        """Into an unpacked copy: merged into 4 bits, the change would be rounded away in part."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            super().save(model, Path(folder))
            merged = super().load(_unpacked(model.get_base_model()), Path(folder))
        return super().merge(merged)


def _options(way: dict[str, Any], device: str) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=way["quant_type"],
        bnb_4bit_use_double_quant=way["double_quant"],
        bnb_4bit_compute_dtype=getattr(torch, _DTYPES[way["compute_dtype"]]),
        llm_int8_skip_modules=list(UNQUANTIZED),
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: Any) -> None:
    """Before first use: on processors with AVX512-BF16 bitsandbytes (0.50) repacks a layer at its first evaluation and
    never unpacks it, after which no gradient passes through it although the loss looks right."""
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _unpacked(base: Any) -> Any:
    """The same weights in 32 bits, in a model without quantization."""
    import copy

    import torch
    from bitsandbytes.functional import dequantize_4bit

    config = copy.deepcopy(base.config)
    del config.quantization_config
    plain = type(base)(config).to(torch.float32)
    state = {}
    for name, value in base.named_parameters():
        if ".lora_" not in name and ".modules_to_save." not in name:
            whole = dequantize_4bit(value.data, value.quant_state) if hasattr(value, "quant_state") else value.data
            state[name.replace(".base_layer", "").replace(".original_module", "")] = whole.to(torch.float32)
    state |= {name: value for name, value in base.named_buffers() if name in plain.state_dict()}
    missing = set(plain.state_dict()) - set(state)
    assert missing <= {"lm_head.weight"}, missing  # a tied output layer stands once
    plain.load_state_dict(state, strict=False)
    return plain


METHOD = Qlora()
