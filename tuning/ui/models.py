"""Under the fields of model and data: Look up, a card, and its download. Drawn by the page's script over /fork/.

Comes in: the form's settings, as their value.  Goes out: the components; the event `downloaded` says that what stands
in the form is here now, `set` of the data's card carries settings that were chosen there.
"""

from __future__ import annotations

import gradio as gr

from tuning.ui import live


def models() -> gr.HTML:
    return gr.HTML(
        value={"settings": {}},
        html_template="<div></div>",
        js_on_load="/* fires 'downloaded' */ " + live.mounting("models"),
        elem_id="tf-models",
        apply_default_css=False,
    )


def hub_data() -> gr.HTML:
    return gr.HTML(
        value={"settings": {}},
        html_template="<div></div>",
        js_on_load="/* fires 'downloaded', 'set' */ " + live.mounting("hub_data"),
        elem_id="tf-hub-data",
        apply_default_css=False,
    )
