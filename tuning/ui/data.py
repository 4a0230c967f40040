"""The section "Your data": the rows of the data in the form, and the tokens they become.

Its value is `{"settings": …}`, the settings in the form; the script asks /fork/data/preview for the rows. It triggers
`set` with settings that were chosen in the section, which go into the form.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from tuning.runs.service import RunService
from tuning.ui.field_text import as_text
from tuning.ui.form import Update, data_choices
from tuning.ui.hub_cards import DATA_CARD, MODEL_CARD
from tuning.ui.sections import EVENT_OPTIONS, Page, Region, Section
from tuning.ui.values import Values, every_path, exact_in_a_browser, settings_from_values

DATA_PATHS = ("task", "model", "revision", "seed", "micro_batch_size", "gradient_accumulation_steps")
"""The settings besides those of the block `data` that change what rows become."""


def _value(service: RunService, values: Values) -> dict[str, Any]:
    return {"settings": settings_from_values(values)}


def _connect(page: Page) -> None:
    """Settings go to the section and to the cards of the hub when one that matters has changed; choices come back."""
    form, paths = page.form, every_path()
    components = [page.components[section] for section in (DATA, MODEL_CARD, DATA_CARD)]
    matter = [field for path, field in form.fields.items() if path in DATA_PATHS or path.startswith("data.")]

    def send(*given: object) -> list[dict[str, Any]]:
        settings = exact_in_a_browser(settings_from_values(form.values(given)))
        return [{"settings": settings}] * len(components)

    def receive(event: gr.EventData) -> list[Update]:
        chosen = event._data.get("values") or {}

        def update(path: str) -> Update:
            change: Update = gr.skip()
            if path == "data.source" and path in chosen:
                change = gr.update(value=chosen[path], choices=data_choices(chosen[path]))
            elif path.startswith("data.") and path in chosen:
                change = gr.update(value=as_text(chosen[path], paths[path]))
            return change

        return [update(path) for path in form.fields]

    fields = list(form.fields.values())
    triggers = [page.blocks.load, *(field.change for field in matter)]
    gr.on(triggers, send, fields, components, trigger_mode="always_last", **EVENT_OPTIONS)
    for section in (DATA, DATA_CARD):
        # multiple: a second press must not be lost
        page.components[section].set(receive, None, fields, trigger_mode="multiple", **EVENT_OPTIONS)


DATA = Section(
    kind="data",
    name="Your data",
    region=Region.MAIN,
    events=("set",),
    initial_value=_value,
    connect=_connect,
)
