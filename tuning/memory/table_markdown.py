"""Methods x micro-batches as a Markdown table of memory peaks, for people who write about memory."""

from __future__ import annotations

from dataclasses import replace

from tuning.core.errors import TuningError, counted
from tuning.core.hardware import Device
from tuning.memory.tracing.table_cache import find_table, make_tables
from tuning.memory.usage import MemoryUsage, usage_of
from tuning.methods import METHODS
from tuning.plan.inputs import PlanInputs
from tuning.plan.plan import Plan, make_plan
from tuning.settings.schema import Settings

MIB = 2**20
ROWS = (1, 2, 4, 8, 16, 32)


def memory_table(inputs: PlanInputs, device: Device) -> str:
    """MiB of tensors at the peak of an update with each method and several micro-batch sizes, other settings as given.

    A dagger stands where the process may not fit the device. Missing memory tables are made first.
    """
    plan = make_plan(inputs)
    tried = (_with_method(plan, inputs, name) for name in _method_names())
    plans = [other.with_device(device) for other in tried if other is not None]
    usages = _traced_usages(plans)
    head = ["method", *(counted(rows, "row") for rows in ROWS), "trained weights", "how"]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *map(_line, usages)])
    return f"{table}\n\n{_caption(plan, device)}{_refused_methods(plans)}"


def _traced_usages(plans: list[Plan]) -> list[MemoryUsage]:
    """The usages of these plans, after their missing tables were made."""
    workloads = [workload for plan in plans for workload in usage_of(plan).workloads]
    missing = [workload for workload in workloads if find_table(workload) is None]
    if missing:
        make_tables(missing)
    return [usage_of(plan) for plan in plans]


def _caption(plan: Plan, device: Device) -> str:
    return (
        f"MiB of tensors at the peak of one update of {plan.model.title}, rows of up to "
        f"{int(plan.value('widest_length'))} tokens, {plan.settings.precision}, {plan.settings.optimizer.name}; † may "
        f"not fit {device.name}."
    )


def _refused_methods(plans: list[Plan]) -> str:
    """A sentence that lists the methods without a plan; empty where all have one."""
    shown = {plan.settings.method.name for plan in plans}
    refused = [method.title for method in METHODS if method.updates and method.name not in shown]
    return f" Refused with these settings: {', '.join(refused)}." if refused else ""


def _method_names() -> list[str]:
    return [method.name for method in METHODS if method.updates]


def _with_method(plan: Plan, inputs: PlanInputs, name: str) -> Plan | None:
    """The plan with the defaults of a method; None where that is refused."""
    if plan.settings.method.name == name:
        return plan
    try:
        settings = Settings.from_dict(plan.settings.to_dict() | {"method": {"name": name}})
        return make_plan(replace(inputs, settings=settings, weights=None, notices=()))
    except TuningError:
        return None


def _line(usage: MemoryUsage) -> list[str]:
    method = next(method for method in METHODS if method.name == usage.plan.settings.method.name)
    cells = [f"{usage.total(row_count=rows) / MIB:.1f}{'' if usage.fits(rows) else ' †'}" for rows in ROWS]
    return [method.title, *cells, f"{int(usage.plan.value('trainable_parameters')):,}", usage.kind]
