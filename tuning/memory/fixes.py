"""What to change so that a run takes less memory, ranked, each with what it saves and what it costs.

Comes in: what is known about a plan, a device.  Goes out: settings changes; and the inverse answer, the largest
micro-batch that fits.  What counts is the highest moment of the whole run: an update's, an evaluation's, or that of
writing answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tuning.architectures import supports_sdpa
from tuning.hardware import Device
from tuning.memory.closed_form import STATES, optimizer_values
from tuning.memory.known import Known, changed, known
from tuning.memory.moments import longest_row
from tuning.methods import method_named
from tuning.plan import Plan
from tuning.prompts import Prompted
from tuning.question import ANSWER_ROWS
from tuning.refusals import refused
from tuning.settings import WRITTEN_METRICS

MOST_ROWS = 4096
LOOKED_AT = 64
"""Rows of an update up to which each number of rows at once is looked at: more of them may take less."""
SHORTEST = 32
"""Tokens below which rows are not cut further."""
MANY = 0.1
"""The share of trained weights from which on an optimizer's state is looked at."""
LEAST_SHARE = 0.02
"""Of the run's highest moment: what some changes must save to be worth what they cost."""
LEANER_OPTIMIZERS = {
    "adamw_8bit": "8-bit AdamW: its two values a weight are rounded, nearly the same curve",
    "adafactor": "Adafactor: another optimizer with hardly any state, another curve",
}
"""In the order in which they are offered, with what they cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Other settings, what is known of the run with them, and in words what they cost; `time_percent` is rough."""

    settings: dict[str, Any]
    cost: str
    other: Known
    time_percent: int = 0
    length: int | None = None
    """The longest row then, where it is another."""
    least: float = 0.0
    """The share of the highest moment below which it is not worth offering."""


def largest_micro_batch(found: Known, device: Device) -> int | None:
    """The largest `micro_batch_size` whose upper edge stays on the device; no more than the data can fill.

    The effective batch stays: with fewer rows gradients of an earlier micro-batch are alive beside a later one, with
    all of its rows at once none are, so more rows can take less. Each side is looked at by itself. Of a large effective
    batch it is one that fits where one more row does not.
    """
    if not found.trains:
        return _most(most_rows(found), lambda rows: found.fits(device, rows))
    if not found.held(found.generation(), device):
        return None

    def fits(rows: int) -> bool:
        return found.held(max(found.total(rows), found.evaluation(rows)), device)

    at_once = min(int(found.plan.value("effective_batch")), most_rows(found))
    if fits(at_once):
        return _most(most_rows(found), lambda rows: rows <= at_once or fits(rows))
    if at_once > LOOKED_AT:
        return _most(at_once, fits)
    # the rows of later micro-batches get shorter the more the first one takes: from above, not by halves
    return next((rows for rows in range(at_once, 0, -1) if fits(rows)), None)


def most_rows(found: Known) -> int:
    """Rows of a micro-batch beyond which the data give no more; an evaluation takes two for each."""
    data = found.plan.data
    return min(MOST_ROWS, data.train_rows if found.trains else (data.eval_rows + 1) // 2)


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


def fixes(found: Known, device: Device) -> list[dict[str, Any]]:
    """Changes that lower the run's highest moment: those that suffice first, then by bytes saved of it.

    Behind them those that lower an update alone, where something else is higher: `saved_bytes` is 0 then.
    """
    ranked, measured = [], {found.kind: _highest_and_update(found)}
    highest = measured[found.kind][0]
    for change in [*_rows(found, device), *_structure(found), *_lengths(found), *_writing(found)]:
        other = change.other
        if other.kind != found.kind:  # compare like with like
            other = _rough(other)
            if other.kind not in measured:
                measured[other.kind] = _highest_and_update(_rough(found))
        before, after = measured[other.kind], _highest_and_update(other, change.length)
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
                "fits": replace(found, plan=other.plan).held(highest - saved, device),
            }
        )
    return sorted(ranked, key=lambda fix: (not fix["fits"], -fix["saved_bytes"], -fix["update_saved_bytes"]))


def _highest_and_update(found: Known, length: int | None = None) -> tuple[int, int]:
    """Bytes at the run's highest moment, and at an update's."""
    update = found.total(length=length)
    between = found.evaluation(length=length) if found.trains else update
    return max(update, between, found.generation()), update


def _rough(found: Known) -> Known:
    """By formula, to compare like with like where only one of two has a table."""
    return Known(plan=found.plan, subject=None, table=None)


def _with(found: Known, **settings: Any) -> Known:
    """With settings that change sizes alone: the table stays."""
    return replace(found, plan=changed(found.plan, settings))


def _rows(found: Known, device: Device) -> Iterator[Change]:
    """The largest divisor of the micro-batch that fits, else the one that takes least."""
    micro, steps = found.plan.settings.micro_batch_size, found.plan.settings.gradient_accumulation_steps
    smaller = [rows for rows in range(micro - 1, 0, -1) if micro % rows == 0]
    if not smaller:
        return
    rows = smaller[0]
    if not found.fits(device):
        taken = {rows: found.highest(rows) for rows in smaller}
        enough = (rows for rows in smaller if found.held(taken[rows], device))
        rows = next(enough, None) or min(smaller, key=lambda rows: (taken[rows], -rows))
    slower = 5 * (micro // rows - 1) if micro // rows < 4 else 20
    if not found.trains:
        cost = f"micro-batch {micro} -> {rows}: fewer rows are evaluated at once, the same measures"
        yield Change(
            settings={"micro_batch_size": rows},
            cost=cost,
            time_percent=slower,
            other=_with(found, micro_batch_size=rows),
        )
        return
    change = {"micro_batch_size": rows, "gradient_accumulation_steps": steps * micro // rows}
    cost = f"micro-batch {micro} -> {rows}, accumulation {steps} -> {steps * micro // rows}: the same effective batch"
    yield Change(settings=change, cost=cost, time_percent=slower, other=_with(found, **change))


def _structure(found: Known) -> Iterator[Change]:
    """What makes another computation: it has a table of its own."""
    plan = found.plan
    settings = plan.settings
    if settings.attention == "eager" and supports_sdpa(plan.model.shape.model_type):
        cost = "attention sdpa instead of eager: the same answer, no slower"
        yield Change(settings={"attention": "sdpa"}, cost=cost, other=known(changed(plan, {"attention": "sdpa"})))
    if not found.trains:
        return
    now = _refused(plan)
    change: dict[str, Any] = {"gradient_checkpointing": True}
    if not settings.gradient_checkpointing and _refused(other := changed(plan, change)) <= now:
        cost = "gradient checkpointing: layers are computed again in the backward pass"
        yield Change(settings=change, cost=cost, time_percent=33, other=known(other))
    yield from _leaner_methods(plan, now)
    yield from _leaner_optimizers(plan, now)


def _leaner_methods(plan: Plan, now: set[tuple[str, str]]) -> Iterator[Change]:
    """What the registry names; settings that both methods have stay, unless they are what is refused."""
    block, own = plan.settings.method, method_named(plan.settings.method.name)
    for method in map(method_named, own.leaner):
        plain = method.able(method.settings(), plan.device.dtypes)
        shared = type(block).model_fields.keys() - {"name"} if issubclass(method.settings, type(block)) else ()
        kept = plain.replace(**{name: getattr(block, name) for name in shared})
        others = (changed(plan, {"method": one}) for one in ([kept, plain] if kept != plain else [plain]))
        other = next((one for one in others if _refused(one) <= now), None)
        if other is not None:
            cost = f"{method.title} instead of {own.title}: {method.gives_up}"
            yield Change(settings={"method": other.settings.method.model_dump()}, cost=cost, other=known(other))


def _leaner_optimizers(plan: Plan, now: set[tuple[str, str]]) -> Iterator[Change]:
    """Optimizers that keep less of each trained weight, where many weights are trained."""
    chosen = plan.settings.optimizer
    if plan.value("trainable_share") < MANY:
        return
    for name, cost in LEANER_OPTIMIZERS.items():
        if STATES[name] >= optimizer_values(chosen):
            continue
        other = changed(plan, {"optimizer": chosen.replace(name=name)})
        if _refused(other) <= now:
            told = cost if chosen.learning_rate is None else f"{cost}, which needs another learning_rate"
            yield Change(settings={"optimizer": {"name": name}}, cost=told, other=known(other), least=LEAST_SHARE)


def _refused(plan: Plan) -> set[tuple[str, str]]:
    """What cannot be done of it: a change may be offered that adds nothing to that."""
    return {(one.field, one.message) for one in refused(plan.settings, plan.model, plan.data, plan.device, Prompted())}


def _lengths(found: Known) -> Iterator[Change]:
    """Shorter rows: cut, or where a method writes them, written shorter."""
    longest = longest_row(found.plan)
    if found.trains:
        if longest > SHORTEST:
            limit = found.plan.settings.data.max_seq_length
            why = "" if limit == longest else f" (the longest row has {longest} tokens)"
            cost = f"max_seq_length {limit} -> {longest // 2}{why}: long rows are cut"
            yield Change(
                settings={"data": {"max_seq_length": longest // 2}},
                cost=cost,
                time_percent=-30,
                other=found,
                length=longest // 2,
                least=LEAST_SHARE,
            )
        return
    shorter = method_named(found.plan.settings.method.name).shorter(found.plan.settings.method)
    if shorter is None:
        return
    other = _with(found, method=shorter[0])
    if "prompted_length" in other.plan.derived:
        time = round(100 * (longest_row(other.plan) / longest - 1))
        yield Change(settings={"method": shorter[0].model_dump()}, cost=shorter[1], time_percent=time, other=other)


def _writing(found: Known) -> Iterator[Change]:
    """Less written while the run evaluates, or fewer at once."""
    settings = found.plan.settings
    asked = settings.eval
    if not found.generation():
        return
    if asked.max_new_tokens > 1:
        fewer = asked.max_new_tokens // 2
        cost = f"max_new_tokens {asked.max_new_tokens} -> {fewer}: longer answers are cut"
        yield Change(
            settings={"eval": {"max_new_tokens": fewer}},
            cost=cost,
            other=_with(found, eval=asked.replace(max_new_tokens=fewer)),
        )
    together = min(ANSWER_ROWS, asked.generate_rows, found.plan.data.eval_rows)
    if WRITTEN_METRICS & set(settings.metrics) and together > 1:
        cost = f"generate_rows {asked.generate_rows} -> {together // 2}: exact match of fewer rows, so a rougher one"
        yield Change(
            settings={"eval": {"generate_rows": together // 2}},
            cost=cost,
            other=_with(found, eval=asked.replace(generate_rows=together // 2)),
        )
    if settings.sample.prompts and found.trains:
        cost = "no sample prompts: ask the model after the run instead"
        yield Change(
            settings={"sample": {"prompts": []}},
            cost=cost,
            other=_with(found, sample=settings.sample.replace(prompts=())),
        )
