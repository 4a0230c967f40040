"""The section "Ask the model": questions to a run and to its base model, which its script sends to /fork/runs/{id}/ask.

The answers stay in the browser.
"""

from __future__ import annotations

from tuning.ui.sections import Region, Section

ASK = Section(kind="ask", name="Ask the model", region=Region.MAIN, script_sets_label=True)
