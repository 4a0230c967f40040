"""The page: one FastAPI app with the /fork/ routes and the Gradio form on top, and how it is launched.

Gradio carries the form and Start; curves, runs and answers go over the routes, so that a reload, a second tab or thirty
viewers take no time from a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import webbrowser
from pathlib import Path

# no message to Gradio's makers that the page was opened; Gradio reads this when it is imported
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402

from tuning.core.paths import asset_path  # noqa: E402
from tuning.runs.service import RunService  # noqa: E402
from tuning.ui.ask import ASK  # noqa: E402
from tuning.ui.data import DATA  # noqa: E402
from tuning.ui.form import build_form, run_name_field  # noqa: E402
from tuning.ui.form_events import connect_form  # noqa: E402
from tuning.ui.header import HEADER  # noqa: E402
from tuning.ui.hub_cards import DATA_CARD, MODEL_CARD  # noqa: E402
from tuning.ui.live import LIVE  # noqa: E402
from tuning.ui.preview import BEFORE_START, PREVIEW  # noqa: E402
from tuning.ui.results import RESULTS  # noqa: E402
from tuning.ui.running import RUNNING  # noqa: E402
from tuning.ui.sections import Page, Region, Section  # noqa: E402
from tuning.ui.theme import theme  # noqa: E402
from tuning.ui.values import RUN_NAME, first_values  # noqa: E402
from tuning.web import add_routes  # noqa: E402
from tuning.web.serving import Serving, addresses, listen  # noqa: E402

SECTIONS: tuple[Section, ...] = (
    HEADER,
    MODEL_CARD,
    DATA_CARD,
    BEFORE_START,
    RUNNING,
    PREVIEW,
    DATA,
    LIVE,
    RESULTS,
    ASK,
)
"""Every section of the page, in the order of the page."""
WARM_UP_AFTER = 1.0
"""Seconds from the server's start."""


def build_page(service: RunService) -> gr.Blocks:
    """The Blocks of the page over one run service."""
    values = first_values()
    components: dict[Section, gr.HTML] = {}

    def add_sections(region: Region) -> None:
        components.update((part, part.build(service, values)) for part in SECTIONS if part.region is region)

    blocks = gr.Blocks(title="Tuning Fork", analytics_enabled=False)
    with blocks:
        add_sections(Region.TOP)
        with gr.Row(elem_id="tf-row", equal_height=False):
            with gr.Column(elem_id="tf-form", scale=0, min_width=340):
                with gr.Column(elem_id="tf-fields"):
                    below = {"model": Region.BELOW_MODEL, "data.source": Region.BELOW_DATA}
                    form = build_form(values, lambda path: add_sections(below[path]) if path in below else None)
                with gr.Column(elem_id="tf-press"):
                    add_sections(Region.ABOVE_START)
                    form.fields[RUN_NAME] = run_name_field()
                    start = gr.Button("Start training", variant="primary", elem_id="tf-start")
            with gr.Column(elem_id="tf-main", min_width=0):
                add_sections(Region.MAIN)
        page = Page(blocks=blocks, service=service, form=form, components=components)
        for section in SECTIONS:
            if section.connect:
                section.connect(page)
        connect_form(page, start)
    return blocks


def build_app(service: RunService, host: str, port: int, serving: Serving | None = None) -> FastAPI:
    """The whole web app: the routes first, then the page over them; all of it behind the guard of `serving`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, service, serving)
    mounted: FastAPI = gr.mount_gradio_app(
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
    return mounted


def default_home() -> Path:
    """The folder of runs without --home: TUNING_FORK_HOME, else the user's data folder."""
    from platformdirs import user_data_path

    return Path(os.environ.get("TUNING_FORK_HOME") or user_data_path("tuning-fork", appauthor=False))


def launch(serving: Serving) -> None:
    """Serves the page until it is interrupted, and prints its address once it can be opened. Raises TuningError."""
    import uvicorn

    # the port comes first: where it is in use, the home folder is not touched
    with listen(serving.host, serving.port) as listener:
        port = listener.getsockname()[1]
        _log_to_standard_error()
        service = RunService((serving.home or default_home()).expanduser())
        if service.store.unsound:
            print(service.store.unsound, file=sys.stderr)
        try:
            service.recover()
            service.watch()
            app = build_app(service, serving.host, port, serving)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

            async def greet() -> None:
                _print_addresses(serving, port)
                # the first page comes before the imports of training, which would share its processor
                asyncio.get_running_loop().call_later(WARM_UP_AFTER, service.warm_up)

            app.router.on_startup.append(greet)
            server.run(sockets=[listener])
        finally:
            service.close()


def _print_addresses(serving: Serving, port: int) -> None:
    own, guests = addresses(serving, port)
    print(f"Tuning Fork is at {own}", flush=True)
    if guests is not None:
        print("  That address sees and changes all runs. For a class, where each browser sees its own runs only:")
        print(f"  {guests}", flush=True)
    if serving.browser:
        # a browser's command line can be seen by other users of the machine: it gets a key that opens once
        once = own if serving.keys is None else f"{own.partition('?')[0]}?token={serving.keys.one_time_key()}"
        threading.Thread(target=webbrowser.open, args=(once,), name="browser", daemon=True).start()


def _log_to_standard_error() -> None:
    """Log who started, stopped or deleted what, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    ours = logging.getLogger("tuning")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
