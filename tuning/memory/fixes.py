"""Changes of settings with which a run takes less memory, ranked, each with its saving and its cost.

Here too is the inverse answer, the largest micro-batch that fits. What counts is the peak of the whole run: that of an
update, of an evaluation, or of writing answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from tuning.memory.formula import optimizer_values
from tuning.memory.peak_batches import longest_row
from tuning.memory.usage import MemoryUsage, usage_of, with_settings_unchecked
from tuning.methods import method_named
from tuning.models.architectures import supports_sdpa
from tuning.plan.checks import check
from tuning.plan.plan import Plan
from tuning.settings.optimizers import OPTIMIZERS
from tuning.settings.schema import WRITTEN_METRICS
from tuning.text.question import ANSWER_ROWS

MOST_ROWS = 4096
TRIED_ONE_BY_ONE = 64
"""Rows of an update up to which each number of rows at once is tried: more of them may take less."""
SHORTEST = 32
"""Tokens below which rows are not cut further."""
TRAINED_SHARE = 0.1
"""The share of trained weights from which on an optimizer with less state is offered."""
LEAST_SHARE = 0.02
"""The share of the run's peak that some changes must save to be worth their cost."""


class Fix(TypedDict):
    """A change as the estimate's JSON has it; `saved_bytes` are of the run's peak, `time_percent` is rough."""

    settings: dict[str, Any]
    cost: str
    saved_bytes: int
    update_saved_bytes: int
    time_percent: int
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Other settings, the memory usage with them, and their cost in words; `time_percent` is rough."""

    settings: dict[str, Any]
    cost: str
    other: MemoryUsage
    time_percent: int = 0
    length: int | None = None
    """Tokens of the longest row with these settings, where it is another."""
    least: float = 0.0
    """The share of the run's peak below which the change is not worth offering."""


def largest_micro_batch(usage: MemoryUsage) -> int | None:
    """The largest `micro_batch_size` whose upper edge stays on the device; no more than the data can fill.

    The effective batch stays: with fewer rows gradients of an earlier micro-batch are alive beside a later one, with
    all of its rows at once none are, so more rows can take less. Each side is looked at by itself. Of a large effective
    batch it is one that fits where one more row does not.
    """
    if not usage.trains:
        return _most(most_rows(usage), usage.fits)
    if not usage.fits_bytes(usage.generation()):
        return None

    def fits(rows: int) -> bool:
        return usage.fits_bytes(max(usage.total(rows), usage.evaluation(rows)))

    at_once = min(int(usage.plan.value("effective_batch")), most_rows(usage))
    if fits(at_once):
        return _most(most_rows(usage), lambda rows: rows <= at_once or fits(rows))
    if at_once > TRIED_ONE_BY_ONE:
        return _most(at_once, fits)
    # the rows of later micro-batches get shorter the more the first one takes: from above, not by halves
    return next((rows for rows in range(at_once, 0, -1) if fits(rows)), None)


def most_rows(usage: MemoryUsage) -> int:
    """Rows of a micro-batch beyond which the data give no more; an evaluation takes two for each."""
    data = usage.plan.data
    return min(MOST_ROWS, data.train_rows if usage.trains else (data.eval_rows + 1) // 2)


def _most(high: int, fits: Callable[[int], bool]) -> int | None:
    """The largest of 1 to `high` that fits, where all below one that fits do; None where 1 does not."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low or None


def fixes(usage: MemoryUsage) -> list[Fix]:
    """Changes that lower the run's peak: those that suffice first, then by bytes saved of it.

    Behind them those that lower an update alone, where something else is higher: `saved_bytes` is 0 then.
    """
    ranked, by_kind = list[Fix](), {usage.kind: _peaks(usage)}
    peak = by_kind[usage.kind][0]
    for change in [*_fewer_rows(usage), *_other_computation(usage), *_shorter_rows(usage), *_less_writing(usage)]:
        other = change.other
        if other.kind != usage.kind:  # compare like with like: both by formula
            other = other.by_formula()
            if other.kind not in by_kind:
                by_kind[other.kind] = _peaks(usage.by_formula())
        before, after = by_kind[other.kind], _peaks(other, change.length)
        saved, of_update = before[0] - after[0], before[1] - after[1]
        if saved < 0 or max(saved, of_update) <= change.least * before[0]:
            continue
        ranked.append(
            {
                "settings": change.settings,
                "cost": change.cost,
                "saved_bytes": saved,
                "update_saved_bytes": of_update,
                "time_percent": change.time_percent,
                "fits": usage.with_plan(other.plan).fits_bytes(peak - saved),
            }
        )
    return sorted(ranked, key=lambda fix: (not fix["fits"], -fix["saved_bytes"], -fix["update_saved_bytes"]))


def _peaks(usage: MemoryUsage, length: int | None = None) -> tuple[int, int]:
    """Bytes at the run's peak, and at an update's."""
    update = usage.total(length=length)
    between = usage.evaluation(length=length) if usage.trains else update
    return max(update, between, usage.generation()), update


def _with(usage: MemoryUsage, **settings: Any) -> MemoryUsage:
    """The usage with settings that change sizes alone."""
    return usage.with_plan(with_settings_unchecked(usage.plan, settings))


def _fewer_rows(usage: MemoryUsage) -> Iterator[Change]:
    """Fewer rows at once: the largest divisor of the micro-batch that fits, else the one that takes least."""
    micro, steps = usage.plan.settings.micro_batch_size, usage.plan.settings.gradient_accumulation_steps
    smaller = [rows for rows in range(micro - 1, 0, -1) if micro % rows == 0]
    if not smaller:
        return
    rows = smaller[0]
    if not usage.fits():
        taken = {rows: usage.peak_of_run(rows) for rows in smaller}
        enough = (rows for rows in smaller if usage.fits_bytes(taken[rows]))
        rows = next(enough, None) or min(smaller, key=lambda rows: (taken[rows], -rows))
    slower = 5 * (micro // rows - 1) if micro // rows < 4 else 20
    if not usage.trains:
        cost = f"micro-batch {micro} -> {rows}: fewer rows are evaluated at once, the same measures"
        yield Change(
            settings={"micro_batch_size": rows},
            cost=cost,
            time_percent=slower,
            other=_with(usage, micro_batch_size=rows),
        )
        return
    change = {"micro_batch_size": rows, "gradient_accumulation_steps": steps * micro // rows}
    cost = f"micro-batch {micro} -> {rows}, accumulation {steps} -> {steps * micro // rows}: the same effective batch"
    yield Change(settings=change, cost=cost, time_percent=slower, other=_with(usage, **change))


def _other_computation(usage: MemoryUsage) -> Iterator[Change]:
    """Settings that change the computation, so that another table holds."""
    plan = usage.plan
    settings = plan.settings
    if settings.attention == "eager" and supports_sdpa(plan.model.shape.model_type):
        cost = "attention sdpa instead of eager: the same answer, no slower"
        yield Change(
            settings={"attention": "sdpa"},
            cost=cost,
            other=usage_of(with_settings_unchecked(plan, {"attention": "sdpa"})),
        )
    if not usage.trains:
        return
    now = _refused(plan)
    change: dict[str, Any] = {"gradient_checkpointing": True}
    if not settings.gradient_checkpointing and _refused(other := with_settings_unchecked(plan, change)) <= now:
        cost = "gradient checkpointing: layers are computed again in the backward pass"
        yield Change(settings=change, cost=cost, time_percent=33, other=usage_of(other))
    yield from _cheaper_methods(plan, now)
    yield from _cheaper_optimizers(plan, now)


def _cheaper_methods(plan: Plan, now: set[tuple[str, str]]) -> Iterator[Change]:
    """The methods that the registry names as cheaper; settings that both have stay, unless they are refused."""
    settings, own = plan.settings.method, method_named(plan.settings.method.name)
    for method in map(method_named, own.cheaper_methods):
        plain = method.fallback_dtype(method.settings(), plan.device.dtypes)
        shared = type(settings).model_fields.keys() - {"name"} if issubclass(method.settings, type(settings)) else ()
        with_shared = plain.replace(**{name: getattr(settings, name) for name in shared})
        candidates = [with_shared, plain] if with_shared != plain else [plain]
        plans = (with_settings_unchecked(plan, {"method": candidate}) for candidate in candidates)
        other = next((other for other in plans if _refused(other) <= now), None)
        if other is not None:
            cost = f"{method.title} instead of {own.title}: {method.tradeoff}"
            yield Change(settings={"method": other.settings.method.model_dump()}, cost=cost, other=usage_of(other))


def _cheaper_optimizers(plan: Plan, now: set[tuple[str, str]]) -> Iterator[Change]:
    """Optimizers that keep less of each trained weight, where many weights are trained."""
    chosen = plan.settings.optimizer
    if plan.value("trainable_share") < TRAINED_SHARE:
        return
    for optimizer in OPTIMIZERS:
        cheaper = chosen.replace(name=optimizer.name)
        if optimizer.as_fix is None or optimizer_values(cheaper) >= optimizer_values(chosen):
            continue
        other = with_settings_unchecked(plan, {"optimizer": cheaper})
        if _refused(other) <= now:
            cost = optimizer.as_fix
            words = cost if chosen.learning_rate is None else f"{cost}, which needs another learning_rate"
            yield Change(
                settings={"optimizer": {"name": optimizer.name}}, cost=words, other=usage_of(other), least=LEAST_SHARE
            )


def _refused(plan: Plan) -> set[tuple[str, str]]:
    """The problems of a plan as (field, message): a change is offered only where it adds none."""
    return {(problem.field, problem.message) for problem in check(plan.inputs)}


def _shorter_rows(usage: MemoryUsage) -> Iterator[Change]:
    """Shorter rows: cut, or where a method writes them, written shorter."""
    longest = longest_row(usage.plan)
    if usage.trains:
        if longest > SHORTEST:
            limit = usage.plan.settings.data.max_seq_length
            why = "" if limit == longest else f" (the longest row has {longest} tokens)"
            cost = f"max_seq_length {limit} -> {longest // 2}{why}: long rows are cut"
            yield Change(
                settings={"data": {"max_seq_length": longest // 2}},
                cost=cost,
                time_percent=-30,
                other=usage,
                length=longest // 2,
                least=LEAST_SHARE,
            )
        return
    shorter = method_named(usage.plan.settings.method.name).with_shorter_prompts(usage.plan.settings.method)
    if shorter is None:
        return
    other = _with(usage, method=shorter[0])
    if "prompted_length" in other.plan.derived:
        time = round(100 * (longest_row(other.plan) / longest - 1))
        yield Change(settings={"method": shorter[0].model_dump()}, cost=shorter[1], time_percent=time, other=other)


def _less_writing(usage: MemoryUsage) -> Iterator[Change]:
    """Less written while the run evaluates, or fewer at once."""
    settings = usage.plan.settings
    evaluation = settings.eval
    if not usage.generation():
        return
    if evaluation.max_new_tokens > 1:
        fewer = evaluation.max_new_tokens // 2
        cost = f"max_new_tokens {evaluation.max_new_tokens} -> {fewer}: longer answers are cut"
        yield Change(
            settings={"eval": {"max_new_tokens": fewer}},
            cost=cost,
            other=_with(usage, eval=evaluation.replace(max_new_tokens=fewer)),
        )
    together = min(ANSWER_ROWS, evaluation.generate_rows, usage.plan.data.eval_rows)
    if WRITTEN_METRICS & set(settings.metrics) and together > 1:
        cost = (
            f"generate_rows {evaluation.generate_rows} -> {together // 2}: exact match of fewer rows, so a rougher one"
        )
        yield Change(
            settings={"eval": {"generate_rows": together // 2}},
            cost=cost,
            other=_with(usage, eval=evaluation.replace(generate_rows=together // 2)),
        )
    if settings.sample.prompts and usage.trains:
        cost = "no sample prompts: ask the model after the run instead"
        yield Change(
            settings={"sample": {"prompts": []}},
            cost=cost,
            other=_with(usage, sample=settings.sample.replace(prompts=())),
        )
