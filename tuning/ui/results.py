"""What a run says on its evaluation rows: the panel under the runs. The page's script asks the routes for its rows.

Comes in: nothing.  Goes out: the component that the script fills.
"""

from __future__ import annotations

import gradio as gr

from tuning.ui import live


def results() -> gr.HTML:
    return gr.HTML(
        html_template="<div></div>", js_on_load=live.mounting("results"), elem_id="tf-results", apply_default_css=False
    )
