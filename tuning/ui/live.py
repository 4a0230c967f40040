"""The components whose markup the page's own script makes: header, preview, curves with the runs table, ask.

Comes in: plain data.  Goes out: gr.HTML components.  Their templates are constant: what a person or a model wrote
travels only as data and is shown through textContent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from tuning.methods import METHODS
from tuning.ui.memory_bar import chart_config

CLAIM = "Change one setting, see what it costs, train, compare."
HELP = "<a class='tf-help' href='fork/help' target='tuning-fork-help'>Help</a>"
"""Opens beside the page, in a tab that the next press uses again: what is typed in the form stays in sight."""
HEADER = f"<header class='tf-header'><h1>Tuning Fork</h1><p>{CLAIM}</p>{HELP}</header>"


def mounting(kind: str) -> str:
    # the script is a module: the browser loads it once and never runs anything from another host
    return (
        "import(new URL('fork/static/page.js', document.baseURI).href)"
        f".then((page) => page.mount('{kind}', element, props, watch, trigger));"
    )


def header(labels: dict[str, str], terms: dict[str, dict[str, str]]) -> gr.HTML:
    """The first component, with the page's own words for settings and what is chosen in them, for all that tells of
    them."""
    return gr.HTML(
        html_template=HEADER,
        js_on_load=mounting("header"),
        elem_id="tf-header",
        apply_default_css=False,
        config={"labels": labels, "terms": terms},
    )


def preview(value: Mapping[str, Any]) -> gr.HTML:
    return gr.HTML(
        value=value,
        html_template="<div></div>",
        elem_id="tf-preview",
        js_on_load="/* fires 'traced' */ " + mounting("preview"),
        apply_default_css=False,
    )


def before_start() -> gr.HTML:
    """What is told before Start, over the button. Filled by the preview's script: both are of the same settings."""
    return gr.HTML(html_template="<div></div>", js_on_load=None, elem_id="tf-before-start", apply_default_css=False)


def running() -> gr.HTML:
    """What trains now, with Stop, over the button Start: in sight wherever the page is scrolled to."""
    return gr.HTML(
        html_template="<div></div>", js_on_load=mounting("running"), elem_id="tf-running", apply_default_css=False
    )


def live() -> gr.HTML:
    """Curves and runs table. Its value names the run that Start has just made, and how many go first; its `reuse` event
    carries settings."""
    return gr.HTML(
        value={"run": None},
        html_template="<div></div>",
        js_on_load="/* fires 'reuse' */ " + mounting("live"),
        elem_id="tf-live",
        apply_default_css=False,
        config=chart_config({method.name: method.title for method in METHODS}),
    )
