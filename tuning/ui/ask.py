"""Asking a model: the panel beside the runs. It posts to /fork/runs/{id}/ask; the answers stay in the browser.

Comes in: nothing.  Goes out: the component that the page's script fills.
"""

from __future__ import annotations

import gradio as gr

from tuning.ui import live


def ask() -> gr.HTML:
    return gr.HTML(
        html_template="<div></div>", js_on_load=live.mounting("ask"), elem_id="tf-ask", apply_default_css=False
    )
