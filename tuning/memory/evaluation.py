"""The memory that a run takes besides its updates: while it evaluates, and while it writes answers.

The verdict counts these peaks where they are above an update's: an evaluation takes more rows at once than training
does, and writing keeps the keys and values of every token.
"""

from __future__ import annotations

from tuning.memory.batch_memory import BatchMemory, Parts
from tuning.memory.peak_batches import cached_features_bytes, eval_batches
from tuning.methods import method_named
from tuning.plan.micro_batches import BatchShape
from tuning.plan.plan import Plan
from tuning.settings.schema import WRITTEN_METRICS
from tuning.text.question import ANSWER_ROWS

FLOAT, HALF = 4, 2
"""Bytes of a number. Keys and values of most families come out of their rotation in 32 bits, and are stored so."""


def evaluation_bytes(plan: Plan, memory: BatchMemory, row_count: int | None = None, length: int | None = None) -> int:
    """Bytes at the peak of an evaluation, or of caching a frozen body's features; 0 where there is neither.

    `row_count` stands for another micro-batch size, `length` for another number of tokens of the longest row.
    """
    shapes = eval_batches(plan, row_count, length)
    return max((memory.forward_total(shape) + cached_features_bytes(plan, shape) for shape in shapes), default=0)


def evaluation_peak(plan: Plan, memory: BatchMemory) -> tuple[Parts, str]:
    """Bytes by category at the peak of the evaluation of a method without updates, and the name of that point."""
    return memory.forward_peak(max(eval_batches(plan), key=memory.forward_total))


def generation_bytes(plan: Plan, memory: BatchMemory) -> int:
    """Bytes at the peak while answers are written, or sample texts classified; 0 where neither is asked for.

    The questions that a recipe or a method puts to the base model before it writes rows count too, one at a time.

    Prompts are not cut at max_seq_length, only where the model's context leaves no room for an answer. Evaluation rows
    are taken to be as long as the longest of them. Without a tokenizer to count with, as the longest training row.
    Under bf16 sample texts and questions to the base model are computed in fp32 all the same; they come out up to a
    sixth too high, for the passes of the table hold 16-bit copies of weights.
    """
    settings, limit = plan.settings, plan.model.shape.max_positions
    derived = {name: int(number.value) for name, number in plan.derived.items()}
    samples = settings.sample.prompts and method_named(settings.method.name).updates
    sample = derived.get("sample_length", derived["widest_length"]) if samples else 0
    if plan.class_count:
        return _classification_bytes(plan, memory, min(sample, limit)) if sample else 0
    written = WRITTEN_METRICS & set(settings.metrics) and plan.data.eval_rows
    answered = derived.get("answered_length", derived["widest_length"]) if written else 0
    together = min(ANSWER_ROWS, settings.eval.generate_rows, plan.data.eval_rows)
    most = limit - min(settings.eval.max_new_tokens, limit - 1)
    return max(
        _writing_bytes(plan, memory, row_count, min(prompt, most), half=half) if prompt else 0
        for row_count, prompt, half in (
            (together, answered, settings.precision == "autocast_bf16"),
            (1, sample, False),  # these two are computed in fp32 always
            (1, derived.get("asked_length", 0), False),
        )
    )


def _classification_bytes(plan: Plan, memory: BatchMemory, length: int) -> int:
    """Bytes of a pass over one text of `length` tokens; a decoder keeps their keys and values though nobody asks."""
    model = plan.model.shape
    cache = 0 if model.encoder else 2 * model.num_layers * length * model.num_kv_heads * model.head_dim * FLOAT
    return cache + memory.forward_total(BatchShape(rows=1, length=length, label_tokens=1, padded=False))


def _writing_bytes(plan: Plan, memory: BatchMemory, row_count: int, prompt: int, *, half: bool) -> int:
    """Bytes while `row_count` answers to prompts of `prompt` tokens are written; `half` says that it is under bf16.

    The higher of reading the prompt and writing the last token: what a pass over these tokens takes, with the keys and
    values of all tokens so far: 2 x layers x rows x tokens x key heads x head size (Pope et al. 2023, arXiv 2211.05102,
    section 2.1), 4 bytes each, or 2 (`Family.half_cache`). A layer's stand twice while one more is put behind them;
    under bf16 its keys alone, for then the output layer's 16-bit copy, which the pass counts, is not there.
    """
    model = plan.model.shape
    last = min(prompt + plan.settings.eval.max_new_tokens, model.max_positions)
    each = HALF if half and model.family.half_cache else FLOAT
    cache = 2 * row_count * model.num_kv_heads * model.head_dim * each
    points = (
        (prompt, model.num_layers * prompt * cache),
        (1, model.num_layers * last * cache + last * (cache // 2 if half else cache)),
    )
    return max(
        cached
        + memory.forward_total(BatchShape(rows=row_count, length=tokens, label_tokens=row_count, padded=row_count > 1))
        for tokens, cached in points
    )
