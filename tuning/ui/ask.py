"""Asking a model: the panel beside the runs. It posts to /fork/runs/{id}/ask; the answers stay in the browser.

Comes in: the bundled data sets, for a prompt to begin with.  Goes out: the component that the page's script fills.
"""

from __future__ import annotations

import gradio as gr

from tuning.data import data_catalogue, open_data
from tuning.settings import DataSettings
from tuning.ui import live

EXAMPLES = 3


def example_prompts() -> dict[str, list[str]]:
    """For each bundled set some prompts of rows that are not trained on."""
    found = {}
    for card in data_catalogue():
        rows = open_data(DataSettings(source=card["name"]), "causal_lm", 0).eval
        found[card["name"]] = [row.prompt for row in rows if row.prompt][:EXAMPLES]
    return found


def ask() -> gr.HTML:
    return gr.HTML(
        html_template="<div></div>", js_on_load=live.mounting("ask"), elem_id="tf-ask", apply_default_css=False,
        config={"examples": example_prompts()},
    )  # fmt: skip
