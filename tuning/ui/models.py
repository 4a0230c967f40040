"""Under the model field: Look up, the model's card, and its download. Drawn by the page's script over /fork/models/.

Comes in: nothing.  Goes out: the component; its `downloaded` event says that the model in the form is here now.
"""

from __future__ import annotations

import gradio as gr

from tuning.ui import live


def models() -> gr.HTML:
    return gr.HTML(
        html_template="<div></div>", js_on_load="/* fires 'downloaded' */ " + live.mounting("models"),
        elem_id="tf-models", apply_default_css=False,
    )  # fmt: skip
