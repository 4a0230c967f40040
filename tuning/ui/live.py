"""The section of curves and runs: the chart (chart.js), the table of runs (runs.js), and what can be done with a run.

Its value tells the script of a run that was just started, or what was changed in older settings. It triggers `reuse`
with settings that go into the form: those of a run, of a file, or of a button that changes some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from tuning.core.errors import Notice
from tuning.methods import METHODS
from tuning.runs.service import RunService
from tuning.settings.schema import Settings
from tuning.settings.versions import upgrade
from tuning.ui.form import Update, updates_for
from tuning.ui.memory_bar import chart_config
from tuning.ui.preview import PREVIEW, preview_value
from tuning.ui.sections import EVENT_OPTIONS, Page, Region, Section
from tuning.ui.values import WOULD_FIT_ON, Values, first_values, values_from_settings


def _no_run(service: RunService, values: Values) -> dict[str, Any]:
    return {"run": None}


def notices_value(notices: Sequence[Notice]) -> dict[str, Any]:
    """The value that shows what was written out of older settings, as messages that stay until they are closed."""
    return {"run": None, "told": [notice.message for notice in notices]} if notices else gr.skip()


def _connect(page: Page) -> None:
    form, preview, live = page.form, page.components[PREVIEW], page.components[LIVE]

    def reuse(event: gr.EventData) -> list[Update]:
        given, notices = upgrade(event._data.get("settings") or {})
        first = first_values()
        # in full: what a file leaves out has its default
        values = first | values_from_settings(Settings.from_dict(given).to_dict())
        values[WOULD_FIT_ON] = event._data.get("device") or first[WOULD_FIT_ON]
        return [*updates_for(form, values), preview_value(page.service, values), notices_value(notices)]

    live.reuse(reuse, None, [*form.outputs(), preview, live], **EVENT_OPTIONS)


LIVE = Section(
    kind="live",
    name="Curves and runs",
    region=Region.MAIN,
    events=("reuse",),
    initial_value=_no_run,
    config=lambda: chart_config({method.name: method.title for method in METHODS}),
    connect=_connect,
)
