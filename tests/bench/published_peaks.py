"""Peaks of GPU memory that others measured and published, with the settings they printed beside them.

`SOURCES` have their `Peak`s in bytes as published (GB are 10^9, MB as nvidia-smi's MiB). Where a setting is not printed
by the source itself, the words of the source's entry say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MIB = 2**20
LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5}
MODELS: dict[str, dict[str, Any]] = {
    "Llama-3.2-3B": LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "Llama-2-7B": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "Llama-2-13B": LLAMA
    | {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "BERT large": {
        "model_type": "bert",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
}
"""The public config.json of each, without what changes no size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """One published figure. `length` None is a longest row that was not published."""

    what: str
    model: str
    method: dict[str, Any]
    rows: int
    length: int | None
    bytes: int
    accumulate: bool = False
    """Whether gradients of an earlier pass are alive while rows go forward."""
    precision: str = "fp32"
    """Of the computation: bf16 is autocast, fp16 counted as the same two bytes."""
    recompute: bool = False
    optimizer: str = "adamw"
    trained: int = 0
    """Weights that move, where published."""
    between: int = 0
    """Bytes allocated after an update, where published: the mean of the first 250."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where peaks come from, and what holds for all of them."""

    title: str
    where: str
    kind: str
    """allocated or reserved (both by torch's allocator), or nvidia-smi (with the context)."""
    settings: str
    peaks: list[Peak]
    task: str = "causal_lm"
    labels: int = 0
    attention: str = "sdpa"
    padded: bool = False
    base: str = "fp32"
    adapter: str = "fp32"
    limit: int = 0
    """The published limit of a row's length, where the longest is not published."""
    context: int = 0
    """What the source measured before any tensor."""
    added: list[str] = field(default_factory=list)
    """What their loop keeps and ours does not, by the names in `published.py`."""


def _peft(what: str, method: dict[str, Any], trained: int, peak: int, between: int) -> Peak:
    return Peak(
        what=what,
        model="Llama-3.2-3B",
        method=method,
        rows=4,
        length=None,
        bytes=peak,
        trained=trained,
        between=between,
    )


def _lora(r: int, targets: str, **more: Any) -> dict[str, Any]:
    return {"name": "lora", "r": r, "alpha": 2.0 * r, "target_modules": targets, **more}


def _front(name: str, tokens: int) -> dict[str, Any]:
    return {"name": name, "virtual_tokens": tokens}


PEFT = Source(
    title="PEFT method comparison, MetaMathQA, L40S",
    where="github.com/huggingface/peft, method_comparison/MetaMathQA/results/*.json",
    kind="reserved",
    padded=True,
    base="bf16",
    limit=768,
    added=["cache"],
    settings="bf16 base, adapters in fp32, no autocast, batch 4, sdpa, AdamW (foreach), clipping, no accumulation; "
    "rows sorted in groups of 80; max_seq_length 768; torch 2.7.1 to 2.13.0",
    peaks=[
        _peft("LoRA r32 q, v, torch 2.7.1", _lora(32, "q_proj+v_proj"), 9_175_040, 22_273_851_392, 6_925_580_958),
        _peft("LoRA r32 q, v, torch 2.9.0", _lora(32, "q_proj+v_proj"), 9_175_040, 22_286_434_304, 6_927_427_099),
        _peft("LoRA r64 q, v", _lora(64, "q_proj+v_proj"), 18_350_080, 22_540_189_696, 7_072_427_178),
        _peft("rslora r64 q, v", _lora(64, "q_proj+v_proj", rslora=True), 18_350_080, 22_538_092_544, 7_072_427_178),
        _peft("LoRA r10 feed-forward", _lora(10, "feed-forward"), 9_461_760, 24_712_839_168, 6_935_100_324),
        _peft("DoRA r32 q, v", _lora(32, "q_proj+v_proj", dora=True), 9_289_728, 24_540_872_704, 6_925_407_713),
        _peft("full", {"name": "full"}, 3_212_749_824, 37_241_225_216, 26_069_449_255),
        _peft("prompt tuning 200, random", _front("prompt_tuning", 200), 614_400, 24_379_392_000, 7_082_871_495),
        _peft("prompt tuning 200, vocabulary", _front("prompt_tuning", 200), 614_400, 24_423_432_192, 7_082_755_428),
        _peft("p-tuning 20", _front("p_tuning", 20), 28_382_208, 20_937_965_568, 7_263_395_394),
        _peft("p-tuning 20, RTX 4090", _front("p_tuning", 20), 28_382_208, 20_946_354_176, 7_265_250_011),
        _peft("p-tuning 30, RTX 4090", _front("p_tuning", 30), 28_412_928, 21_458_059_264, 7_281_153_935),
        _peft("p-tuning 50, RTX 4090", _front("p_tuning", 50), 28_474_368, 22_204_645_376, 7_309_444_770),
        _peft("prefix 50, torch 2.9.0", _front("prefix_tuning", 50), 2_867_200, 20_598_226_944, 6_850_508_638),
        _peft("prefix 200, torch 2.7.1", _front("prefix_tuning", 200), 11_468_800, 20_912_799_744, 7_053_410_574),
        _peft("prefix 200, torch 2.13.0", _front("prefix_tuning", 200), 11_468_800, 21_952_987_136, 7_055_651_895),
        _peft("IA3, torch 2.7.1", {"name": "ia3"}, 286_720, 23_137_878_016, 6_780_994_972),
        _peft("IA3, torch 2.13.0", {"name": "ia3"}, 286_720, 23_234_347_008, 6_782_665_173),
    ],
)
"""A file a run: settings, versions, card; torch's max_memory_reserved (`accelerator_memory_max`) and the mean of
memory_allocated after updates (`mem allocated avg`, here of the first 250, whose rows are the same in all runs). Of
several files of a run those that were at hand; the longest row is in none."""


def _bert(what: str, rows: int, mib: int, **more: Any) -> Peak:
    return Peak(
        what=what,
        model="BERT large",
        method={"name": "full"},
        rows=rows,
        length=512,
        bytes=mib * MIB,
        accumulate=True,
        **more,
    )


BERT = Source(
    title="Transformers documentation, Efficient Training on a Single GPU (January 2022), V100",
    where="github.com/huggingface/transformers, docs/source/en/perf_train_gpu_one.mdx",
    kind="nvidia-smi",
    task="sequence_classification",
    labels=2,
    attention="eager",
    context=1343 * MIB,
    added=["softmax"],
    settings="fp32 weights, rows of 512 random tokens without padding, dropout 0.1, eager attention, Trainer; "
    "gradients are set to zero and not freed, as torch before 2.0 did; context measured there: 1,343 MiB",
    peaks=[
        _bert("full 4 x 512", 4, 14_949),
        _bert("full 1 x 512, accumulation 4", 1, 8_681),
        _bert("the same, recompute", 1, 6_775, recompute=True),
        _bert("full 4 x 512, fp16", 4, 13_939, precision="bf16"),
        _bert("full 1 x 512, recompute, fp16", 1, 7_275, recompute=True, precision="bf16"),
        _bert("full 4 x 512, Adafactor", 4, 12_295, optimizer="adafactor"),
        _bert(
            "full 1 x 512, recompute, fp16, Adafactor",
            1,
            4_847,
            recompute=True,
            precision="bf16",
            optimizer="adafactor",
        ),
        _bert("full 4 x 512, 8-bit Adam", 4, 13_085, optimizer="adamw_8bit"),
        _bert(
            "full 1 x 512, recompute, fp16, 8-bit Adam",
            1,
            5_363,
            recompute=True,
            precision="bf16",
            optimizer="adamw_8bit",
        ),
    ],
)


def _litgpt(size: str, rows: int, gb: float, quant: str = "") -> Peak:
    method = _lora(8, "q_proj+v_proj")
    if quant:
        method |= {"name": "qlora", "compute_dtype": "bf16", "double_quant": quant == "nf4-dq"}
    return Peak(
        what=f"{'QLoRA ' + quant if quant else 'LoRA'} r8 q, v",
        model=f"Llama-2-{size}",
        method=method,
        rows=rows,
        length=1304,
        bytes=round(gb * 1e9),
        accumulate=True,
        trained={"7B": 4_194_304, "13B": 6_553_600}[size],
    )


LITGPT = Source(
    title="LitGPT resource tables (October 2023), A100 40 GB",
    where="github.com/Lightning-AI/litgpt, tutorials/resource-tables.md",
    kind="allocated",
    base="bf16",
    adapter="bf16",
    added=["litgpt blocks", "litgpt loss", "litgpt nf4"],
    settings="bf16 weights and adapters, Alpaca, longest row 1,304 tokens as printed there, LoRA r8 with dropout 0.05, "
    "accumulation to 128 rows, no recompute; torch 2.1, bitsandbytes 0.41.1; their own model code, not transformers'",
    peaks=[
        _litgpt("7B", 1, 21.30),
        _litgpt("7B", 2, 29.07),
        _litgpt("7B", 1, 14.14, "nf4"),
        _litgpt("7B", 1, 13.84, "nf4-dq"),
        _litgpt("13B", 1, 38.12),
        _litgpt("13B", 1, 23.14, "nf4"),
        _litgpt("13B", 1, 22.55, "nf4-dq"),
    ],
)

SOURCES = [PEFT, BERT, LITGPT]
