"""The memory tables that ship with the program: whoever opens the page finds one, without tracing first."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tuning.memory.estimate import estimate
from tuning.memory.tracing.table_cache import _shipped
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for

MAKER = Path(__file__).resolve().parents[2] / "assets" / "make" / "memory_tables.py"


def maker() -> Any:
    """The script that makes them."""
    spec = importlib.util.spec_from_file_location("memory_tables", MAKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_that_the_script_would_make_is_found_under_todays_key() -> None:
    """A setting renamed, or a kind of workload told otherwise, changes the keys: the tables then have to move along."""
    workloads, shipped = maker().workloads_to_ship(), _shipped()
    assert len(workloads) > 60
    assert workloads.keys() == shipped.keys()


@pytest.mark.parametrize("precision", ["fp32", "autocast_bf16"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_first_estimate_on_a_new_machine_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, method: str
) -> None:
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path / "empty"))
    plan = plan_for({"device": "cpu", "precision": precision, "method": {"name": method}})
    assert estimate(usage_of(plan)).kind == "traced"
    assert usage_of(plan).workloads[0].key in _shipped()
