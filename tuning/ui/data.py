"""The section "Your data": told which settings stand in the form, it asks for the preview and draws it.

Comes in: the form.  Goes out: a gr.HTML component whose value carries the settings; its `set` event carries settings
that were chosen in the section, which go into the form.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from tuning.ui.form import Form, data_choices
from tuning.ui.live import mounting
from tuning.ui.values import as_text, every_path, exact_in_a_browser, settings_from_values

MATTERS = ("task", "model", "revision", "seed", "micro_batch_size", "gradient_accumulation_steps")


def section(values: dict[str, Any]) -> gr.HTML:
    return gr.HTML(
        value={"settings": settings_from_values(values)},
        html_template="<div></div>",
        js_on_load="/* fires 'set' */ " + mounting("data"),
        elem_id="tf-data",
        apply_default_css=False,
    )


def connect(page: gr.Blocks, form: Form, data: gr.HTML, quick: dict[str, Any]) -> None:
    """Settings go to the section and to the look-up cards when one that matters has changed; choices come back."""
    paths, places = every_path(), [data, form.lookup, form.hub_data]
    matter = [part for path, part in form.parts.items() if path in MATTERS or path.startswith("data.")]

    def tell(*given: Any) -> list[dict[str, Any]]:
        settings = exact_in_a_browser(settings_from_values(form.values(given)))
        return [{"settings": settings}] * len(places)

    def take(event: gr.EventData) -> list[Any]:
        chosen = event._data.get("values") or {}

        def one(path: str) -> Any:
            if path not in chosen or not path.startswith("data."):
                return gr.skip()
            if path == "data.source":
                return gr.update(value=chosen[path], choices=data_choices(chosen[path]))
            return gr.update(value=as_text(chosen[path], paths[path]))

        return [one(path) for path in form.parts]

    parts = list(form.parts.values())
    gr.on([page.load, *(part.change for part in matter)], tell, parts, places, trigger_mode="always_last", **quick)
    for place in (data, form.hub_data):
        place.set(take, None, parts, trigger_mode="multiple", **quick)  # a second press must not be lost
