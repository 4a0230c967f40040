"""What the page draws of memory besides the bar: through one step, against rows, against length, and what to change.

Comes in: a plan, a device.  Goes out: plain data.  Every number comes from the same tables as the estimate; methods
whose tables have not been made are left out.
"""

from __future__ import annotations

from typing import Any

from tuning.hardware import Device
from tuning.memory.fixes import MOST_ROWS, fixes, largest_micro_batch, most_rows
from tuning.memory.known import Known, changed, known
from tuning.memory.moments import longest_row
from tuning.memory.several import several
from tuning.methods import METHODS
from tuning.plan import Plan

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
LEAST_TOKENS = 8
SEVERAL = (2, 4, 8)


def outlook(plan: Plan, device: Device) -> dict[str, Any]:
    """Curves in bytes: of an update's tensors, and of the whole process, which is what the device's line is about.

    Where a run makes no updates, tensors are those of its evaluation, and `effective_batch` is None. `reaches` are the
    most rows that fit and give exactly the effective batch, with their accumulation steps; `all_rows` is how many rows
    there are, where all of them at once fit.
    """
    found = known(plan.on(device))
    largest = largest_micro_batch(found, device)
    data_rows = plan.data.train_rows if found.trains else plan.data.eval_rows
    settings = plan.settings
    lengths = _lengths(plan)
    return {
        "kind": found.kind,
        "why_approximate": found.why_approximate,
        "device": {"name": device.name, "bytes": device.total_bytes},
        "step": [{"place": place, "bytes": count} for place, count in found.through_step()],
        "rows": {"at": settings.micro_batch_size, "values": list(ROWS), "curves": _curves(found, device, rows=ROWS)},
        "lengths": {"at": longest_row(plan), "values": lengths, "curves": _curves(found, device, lengths=lengths)},
        "several": [one.to_dict() for count in SEVERAL * found.trains for one in several(found, device, count)],
        "fits": found.fits(device),
        "largest_micro_batch": largest,
        "all_rows": data_rows if largest == most_rows(found) < MOST_ROWS else None,
        "effective_batch": plan.value("effective_batch") if found.trains else None,
        "reaches": _reaches(found, device) if found.trains else None,
        "fixes": fixes(found, device),
        "settings": settings.to_dict(),
    }


def _reaches(found: Known, device: Device) -> dict[str, int] | None:
    """Rows and steps whose product stays as it is, the most rows that fit; None where not even one does."""
    settings = found.plan.settings
    product = settings.micro_batch_size * settings.gradient_accumulation_steps
    for rows in range(product, 0, -1):
        if product % rows == 0 and found.fits(device, rows):
            return {"rows": rows, "steps": product // rows}
    return None


def _lengths(plan: Plan) -> list[int]:
    widest = longest_row(plan)
    limit = plan.model.shape.max_positions
    wanted = {min(limit, max(LEAST_TOKENS, round(widest * share))) for share in SHARES}
    return sorted(wanted | {widest})


def _curves(
    found: Known, device: Device, rows: tuple[int, ...] = (), lengths: list[int] | None = None
) -> list[dict[str, Any]]:
    """The chosen method first, then the others with a table."""
    curves = []
    for one in [found, *_others(found)]:
        sizes = [{"rows": count} for count in rows] or [{"length": length} for length in lengths or []]
        method = one.plan.settings.method.name
        curves.append(
            {
                "method": method,
                "title": next(m.title for m in METHODS if m.name == method),
                "tensors": [one.total(**size) for size in sizes],
                "process": [one.process(one.highest(**size), device)[0] for size in sizes],
            }
        )
    return curves


def _others(found: Known) -> list[Known]:
    chosen = found.plan.settings.method.name
    candidates = [method for method in METHODS if method.updates and method.name != chosen]
    plans = (changed(found.plan, {"method": method.settings()}) for method in candidates)
    return [one for one in map(known, plans) if one.table is not None]
