"""The section "Evaluation rows": what a run predicts on them; its script asks the routes of results for the rows."""

from __future__ import annotations

from tuning.ui.sections import Region, Section

RESULTS = Section(kind="results", name="Evaluation rows", region=Region.MAIN, script_sets_label=True)
