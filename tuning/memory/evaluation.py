"""What a run takes besides its updates: while it evaluates, and while it writes answers.

Comes in: a plan, its table where there is one.  Goes out: bytes of tensors at the peak of each.  The verdict counts
them where they are above an update's: an evaluation takes more rows at once than training does, and writing keeps the
keys and values of every token.
"""

from __future__ import annotations

from tuning.memory.closed_form import closed_form_pass
from tuning.memory.moments import kept_features, passes_of
from tuning.memory.subject import CATEGORIES, Subject
from tuning.memory.table import Table
from tuning.methods import method_named
from tuning.micro_batches import Moment, Shape
from tuning.plan import Plan
from tuning.question import ANSWER_ROWS
from tuning.settings import WRITTEN_METRICS

FLOAT, HALF = 4, 2
"""Bytes of a number. Keys and values of most families come out of their rotation in 32 bits, and are stored so."""


def evaluation_bytes(
    plan: Plan, subject: Subject | None, table: Table | None, rows: int | None = None, length: int | None = None
) -> int:
    """Bytes at the peak of an evaluation, or of keeping a frozen body's states; 0 where there is neither.

    `rows` stands for another micro-batch, `length` for another longest row.
    """
    shapes = passes_of(plan, rows, length)
    return max((_forward(plan, subject, table, one) + kept_features(plan, one) for one in shapes), default=0)


def evaluation_parts(plan: Plan, subject: Subject | None, table: Table | None) -> tuple[dict[str, int], str]:
    """The same by category, and where in the pass it is, for a method without updates."""
    shape = max(passes_of(plan), key=lambda one: _forward(plan, subject, table, one))
    if table is None or subject is None:
        total = closed_form_pass(plan, shape)
        method, settings = method_named(plan.settings.method.name), plan.settings.method
        weights = min(total, method.weight_bytes(plan.model.shape, settings, plan.labels))
        return dict.fromkeys(CATEGORIES, 0) | {"weights": weights, "activations": total - weights}, "forward"
    return table.evaluation(shape).peak(Moment(shape=shape, accumulate=True), subject.rank)


def generation_bytes(plan: Plan, subject: Subject | None, table: Table | None) -> int:
    """Bytes at the peak while answers are written, or sample texts classified; 0 where neither is asked for.

    What a recipe or a method asks the base model before it writes rows counts too, one question at a time.

    Prompts are not cut at max_seq_length, only where the model's context leaves no room for an answer. Evaluation rows
    are taken to be as long as the longest of them. Without a tokenizer to count with, as the longest training row.
    Under bf16 sample texts and questions to the base model are computed in fp32 all the same; they come out up to a
    sixth too high, for the passes of the table hold 16-bit copies of weights.
    """
    settings, limit = plan.settings, plan.model.shape.max_positions
    known = {name: int(one.value) for name, one in plan.derived.items()}
    samples = settings.sample.prompts and method_named(settings.method.name).updates
    sample = known.get("sample_length", known["widest_length"]) if samples else 0
    if plan.labels:
        return _classifying(plan, subject, table, min(sample, limit)) if sample else 0
    written = WRITTEN_METRICS & set(settings.metrics) and plan.data.eval_rows
    answered = known.get("answered_length", known["widest_length"]) if written else 0
    together = min(ANSWER_ROWS, settings.eval.generate_rows, plan.data.eval_rows)
    most = limit - min(settings.eval.max_new_tokens, limit - 1)
    return max(
        _writing(plan, subject, table, rows, min(prompt, most), half=half) if prompt else 0
        for rows, prompt, half in (
            (together, answered, settings.precision == "autocast_bf16"),
            (1, sample, False),  # these two are computed in fp32 always
            (1, known.get("asked_length", 0), False),
        )
    )


def _classifying(plan: Plan, subject: Subject | None, table: Table | None, length: int) -> int:
    """A pass over one text of so many tokens; a decoder keeps their keys and values meanwhile, though nobody asks."""
    model = plan.model.shape
    kept = 0 if model.encoder else 2 * model.num_layers * length * model.num_kv_heads * model.head_dim * FLOAT
    return kept + _forward(plan, subject, table, Shape(rows=1, length=length, labels=1, padded=False))


def _writing(plan: Plan, subject: Subject | None, table: Table | None, rows: int, prompt: int, *, half: bool) -> int:
    """Answers to so many prompts of so many tokens; `half` says that they are written under bf16.

    The higher of reading the prompt and writing the last token: what a pass over these tokens takes, with the keys and
    values of all tokens so far: 2 x layers x rows x tokens x key heads x head size (Pope et al. 2023, arXiv 2211.05102,
    section 2.1), 4 bytes each, or 2 (`Family.half_cache`). A layer's stand twice while one more is put behind them;
    under bf16 its keys alone, for then the output layer's 16-bit copy, which the pass counts, is not there.
    """
    model = plan.model.shape
    last = min(prompt + plan.settings.eval.max_new_tokens, model.max_positions)
    each = HALF if half and model.family.half_cache else FLOAT
    cache = 2 * rows * model.num_kv_heads * model.head_dim * each
    moments = (
        (prompt, model.num_layers * prompt * cache),
        (1, model.num_layers * last * cache + last * (cache // 2 if half else cache)),
    )
    return max(
        kept + _forward(plan, subject, table, Shape(rows=rows, length=tokens, labels=rows, padded=rows > 1))
        for tokens, kept in moments
    )


def _forward(plan: Plan, subject: Subject | None, table: Table | None, shape: Shape) -> int:
    if table is None or subject is None:
        return closed_form_pass(plan, shape)
    return table.evaluation(shape).total(Moment(shape=shape, accumulate=True), subject.rank)
