"""The section "Running now": the run that trains, with Stop, over the button Start."""

from __future__ import annotations

from tuning.ui.sections import Region, Section

RUNNING = Section(kind="running", name="Running now", region=Region.ABOVE_START, script_sets_label=True)
