"""Methods x micro-batches as a Markdown table, for people who write about memory.

Comes in: a plan (its model, data and everything but method and micro-batch), a device.  Goes out: Markdown.
"""

from __future__ import annotations

from tuning.errors import TuningError
from tuning.hardware import Device
from tuning.memory.known import Known, known
from tuning.memory.tables import find_table, make_tables
from tuning.methods import METHODS
from tuning.plan import Plan, make_plan
from tuning.settings import Settings

MIB = 2**20
ROWS = (1, 2, 4, 8, 16, 32)


def memory_table(plan: Plan, device: Device) -> str:
    """MiB of tensors at the peak; a dagger where the process may not fit the device. Tables not there are made."""
    plans = [one.on(device) for one in map(lambda name: _with_method(plan, name), _names()) if one is not None]
    subjects = [one for plan in plans for one in known(plan).wanted if find_table(one) is None]
    if subjects:
        make_tables(subjects)
    head = ["method", *(f"{rows} rows" for rows in ROWS), "trained weights", "how"]
    lines = [_line(known(one), device) for one in plans]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])
    widest = int(plan.value("widest_length"))
    said = (
        f"MiB of tensors at the peak of one update of {plan.model.title}, rows of up to {widest} tokens, "
        f"{plan.settings.precision}, {plan.settings.optimizer.name}; † may not fit {device.name}."
    )
    shown = {one.settings.method.name for one in plans}
    refused = [method.title for method in METHODS if method.updates and method.name not in shown]
    return f"{table}\n\n{said}" + (f" Refused with these settings: {', '.join(refused)}." if refused else "")


def _names() -> list[str]:
    return [method.name for method in METHODS if method.updates]


def _with_method(plan: Plan, name: str) -> Plan | None:
    """The plan with a method's defaults; None where it is refused."""
    if plan.settings.method.name == name:
        return plan
    try:
        settings = Settings.from_dict(plan.settings.to_dict() | {"method": {"name": name}})
        return make_plan(settings, plan.model, plan.data, plan.device)
    except TuningError:
        return None


def _line(found: Known, device: Device) -> list[str]:
    method = next(method for method in METHODS if method.name == found.plan.settings.method.name)
    cells = [f"{found.total(rows=rows) / MIB:.1f}{'' if found.fits(device, rows) else ' †'}" for rows in ROWS]
    return [method.title, *cells, f"{int(found.plan.value('trainable_parameters')):,}", found.kind]
