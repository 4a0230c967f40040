"""The page: one FastAPI app with the /fork/ routes and the Gradio form on top, and how it is launched.

Comes in: host, port and the home folder.  Goes out: a served page.  Gradio carries the form and Start; curves, runs
and answers go over the routes, so that a reload, a second tab or thirty viewers cost nothing that the run could feel.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# a page that tells nobody it was opened: Gradio reads this when it is imported
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402

from tuning.core.errors import Notice  # noqa: E402
from tuning.core.paths import asset_path  # noqa: E402
from tuning.runs.service import RunService  # noqa: E402
from tuning.settings.schema import Settings  # noqa: E402
from tuning.settings.versions import VERSION, upgrade  # noqa: E402
from tuning.ui import ask as ask_room  # noqa: E402
from tuning.ui import data as data_room  # noqa: E402
from tuning.ui import form as form_room  # noqa: E402
from tuning.ui import live as live_room  # noqa: E402
from tuning.ui import results as results_room  # noqa: E402
from tuning.ui.preview import PreviewValue, preview_value, run_name, told  # noqa: E402
from tuning.ui.theme import theme  # noqa: E402
from tuning.ui.values import (  # noqa: E402
    CHOSEN,
    KEPT_VERSION,
    LENGTH,
    RUN_NAME,
    STEPS,
    WOULD_FIT_ON,
    first_values,
    kept_values,
    settings_from_values,
    values_from_settings,
)
from tuning.web import add_routes
from tuning.web.serving import Serving, addresses, listen  # noqa: E402

QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}

WARM_UP_AFTER = 1.0
"""Seconds from the server's start."""


def build_page(service: RunService) -> gr.Blocks:
    """The Blocks of the page over one run service."""
    values = first_values()
    with gr.Blocks(title="Tuning Fork", analytics_enabled=False) as page:
        live_room.header(form_room.page_labels(), form_room.page_terms())
        with gr.Row(elem_id="tf-row", equal_height=False):
            with gr.Column(elem_id="tf-form", scale=0, min_width=340):
                with gr.Column(elem_id="tf-fields"):
                    form = form_room.build_form(values)
                    form.parts[WOULD_FIT_ON] = form_room.fit_question(values)
                with gr.Column(elem_id="tf-press"):
                    live_room.before_start()
                    live_room.running()
                    form.parts[RUN_NAME] = gr.Textbox(
                        placeholder="Run name (optional)",
                        label="Run name",
                        show_label=False,
                        container=False,
                        elem_id=form_room.dom_id(RUN_NAME),
                        elem_classes=["tf-field"],
                        html_attributes=form_room.AS_TYPED,
                    )
                    start = gr.Button("Start training", variant="primary", elem_id="tf-start")
            with gr.Column(elem_id="tf-main", min_width=0):
                preview = live_room.preview(preview_value(service, values))
                data = data_room.section(values)
                live = live_room.live()
                results_room.results()
                ask_room.ask()
        saved = gr.BrowserState({}, storage_key="tuning-fork-form", secret="tuning-fork")
        _connect(page, service, form, start, preview, live, saved)
        data_room.connect(page, form, data, QUICK)
    return page


def _connect(
    page: gr.Blocks,
    service: RunService,
    form: form_room.Form,
    start: gr.Button,
    preview: gr.HTML,
    live: gr.HTML,
    saved: gr.BrowserState,
) -> None:
    parts = list(form.parts.values())
    shown = [*parts, *form.blocks.values()]
    length = form.parts[LENGTH]

    def look(*given: Any) -> PreviewValue:
        return preview_value(service, form.values(given))

    def press(*given: Any) -> tuple[Any, Any, Any]:
        values = form.values(given)
        made: dict[str, Any] = {}

        def begin() -> dict[str, Any]:
            made["run"] = service.start(settings_from_values(values), name=run_name(values))
            made["first"] = service.queue_position(made["run"]) or 0
            return {}

        answer = told(values, begin, pressed=True)
        # its name was for this run: the next one gets another
        return (gr.skip(), made, "") if made else (answer, gr.skip(), gr.skip())

    def reload(kept: dict[str, Any] | None) -> list[Any]:
        if not kept:  # a first visit: an answer now would undo what a person has chosen already
            return [gr.skip() for _ in (*shown, live)]
        values, notices = kept_values(kept)
        return [*form_room.updates_for(form, values), tell(notices)]

    def again(event: gr.EventData) -> list[Any]:
        given, notices = upgrade(event._data.get("settings") or {})
        first = first_values()
        # in full: what a file leaves out has its default
        values = first | values_from_settings(Settings.from_dict(given).to_dict())
        values[WOULD_FIT_ON] = event._data.get("device") or first[WOULD_FIT_ON]
        return [*form_room.updates_for(form, values), preview_value(service, values), tell(notices)]

    def tell(notices: Sequence[Notice]) -> Any:
        """What was written out of older settings, as a message that stays until it is put away."""
        return {"run": None, "told": [one.message for one in notices]} if notices else gr.skip()

    def which_length(unit: str, epochs: str) -> list[Any]:
        steps = unit == STEPS
        return [gr.update(visible=steps), gr.update(visible=not steps, value=epochs if steps or epochs else "1")]

    gr.on([page.load, *(part.change for part in parts)], look, parts, preview, trigger_mode="always_last", **QUICK)
    # kept by the browser itself: what is typed while the server is away survives too
    named = f"Object.fromEntries({json.dumps(list(form.parts))}.map((path, i) => [path, given[i]]))"
    keep = f"(...given) => ({{...{named}, {KEPT_VERSION}: {VERSION}}})"
    gr.on([part.change for part in parts], None, parts, saved, js=keep, **QUICK)
    steps, epochs = form.parts["max_steps"], form.parts["num_epochs"]
    length.input(which_length, [length, epochs], [steps, epochs], **QUICK)
    choices = [form.parts[f"{kind}.name"] for kind in CHOSEN]
    chosen = [choice.input for choice in choices]
    gr.on(chosen, partial(form_room.shown_blocks, form), choices, list(form.blocks.values()), **QUICK)
    start.click(press, parts, [preview, live, form.parts[RUN_NAME]], trigger_mode="once", **QUICK)
    preview.traced(look, parts, preview, **QUICK)
    form.lookup.downloaded(look, parts, preview, **QUICK)
    form.hub_data.downloaded(look, parts, preview, **QUICK)
    live.reuse(again, None, [*shown, preview, live], **QUICK)
    page.load(reload, saved, [*shown, live], **QUICK)


def build_app(service: RunService, host: str, port: int, serving: Serving | None = None) -> FastAPI:
    """The whole web app: the routes first, then the page over them; all of it behind the guard of `serving`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service, serving)
    return gr.mount_gradio_app(
        app,
        build_page(service),
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        max_file_size="1mb",
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css_paths=asset_path("page.css"),
        show_error=True,
    )


def default_home() -> Path:
    """Where runs are kept when nothing else is said: TUNING_FORK_HOME, else the user's data folder."""
    from platformdirs import user_data_path

    return Path(os.environ.get("TUNING_FORK_HOME") or user_data_path("tuning-fork", appauthor=False))


def launch(serving: Serving) -> None:
    """Serves the page until it is interrupted, and prints its address once it can be opened.

    The port comes first: where it is taken, nothing else is touched. Raises TuningError.
    """
    import uvicorn

    with listen(serving.host, serving.port) as door:
        port = door.getsockname()[1]
        _log_to_standard_error()
        service = RunService((serving.home or default_home()).expanduser())
        if service.store.unsound:
            print(service.store.unsound, file=sys.stderr)
        try:
            service.recover()
            service.watch()
            app = build_app(service, serving.host, port, serving)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

            async def say() -> None:
                _tell_addresses(serving, port)
                # the first page comes before the imports of training, which would share its processor
                asyncio.get_running_loop().call_later(WARM_UP_AFTER, service.warm_up)

            app.router.on_startup.append(say)
            server.run(sockets=[door])
        finally:
            service.close()


def _tell_addresses(serving: Serving, port: int) -> None:
    own, guests = addresses(serving, port)
    print(f"Tuning Fork is at {own}", flush=True)
    if guests is not None:
        print("  That address sees and changes all runs. For a class, where each browser sees its own runs only:")
        print(f"  {guests}", flush=True)
    if serving.browser:
        # a browser's command line can be seen by other users of the machine: it gets a key that opens once
        once = own if serving.keys is None else f"{own.partition('?')[0]}?token={serving.keys.once()}"
        threading.Thread(target=webbrowser.open, args=(once,), name="browser", daemon=True).start()


def _log_to_standard_error() -> None:
    """Who started, stopped or deleted what, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    ours = logging.getLogger("tuning")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
