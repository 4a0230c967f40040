"""What happens in the form itself: fields that follow a choice, Start, and what the browser stores of the form."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import gradio as gr

from tuning.settings.versions import VERSION
from tuning.ui.form import Update, shown_blocks, updates_for
from tuning.ui.live import LIVE, notices_value
from tuning.ui.preview import PREVIEW, answer_or_problems, run_name
from tuning.ui.sections import EVENT_OPTIONS, Page
from tuning.ui.values import (
    CHOSEN,
    LENGTH,
    RUN_NAME,
    STEPS,
    STORED_VERSION,
    Values,
    settings_from_values,
    stored_values,
)

STORAGE_KEY = "tuning-fork-form"
"""The key in the browser's local storage."""


def connect_form(page: Page, start: gr.Button) -> None:
    """Register the events of the form's fields and of the button Start."""
    _connect_choices(page)
    _connect_storage(page)
    _connect_start(page, start)


def _connect_choices(page: Page) -> None:
    """The fields of the chosen method and recipe, and of the chosen unit of the length, are those in sight."""
    fields = page.form.fields

    def show_length(unit: str, epochs: str) -> list[Update]:
        steps = unit == STEPS
        return [gr.update(visible=steps), gr.update(visible=not steps, value=epochs if steps or epochs else "1")]

    length, steps, epochs = fields[LENGTH], fields["max_steps"], fields["num_epochs"]
    length.input(show_length, [length, epochs], [steps, epochs], **EVENT_OPTIONS)
    choices = [fields[f"{kind}.name"] for kind in CHOSEN]
    blocks = list(page.form.blocks.values())
    gr.on([choice.input for choice in choices], partial(shown_blocks, page.form), choices, blocks, **EVENT_OPTIONS)


def _connect_storage(page: Page) -> None:
    """The browser itself stores the form, so that what is typed while the server is away survives too."""
    form, live = page.form, page.components[LIVE]
    fields = list(form.fields.values())
    stored = gr.BrowserState({}, storage_key=STORAGE_KEY, secret="tuning-fork")

    def restore(saved: Values | None) -> list[Update]:
        if not saved:  # a first visit: an answer now would undo what a person has chosen already
            return [gr.skip() for _ in (*form.outputs(), live)]
        values, notices = stored_values(saved)
        return [*updates_for(form, values), notices_value(notices)]

    by_path = f"Object.fromEntries({json.dumps(list(form.fields))}.map((path, i) => [path, given[i]]))"
    store = f"(...given) => ({{...{by_path}, {STORED_VERSION}: {VERSION}}})"
    gr.on([field.change for field in fields], None, fields, stored, js=store, **EVENT_OPTIONS)
    page.blocks.load(restore, stored, [*form.outputs(), live], **EVENT_OPTIONS)


def _connect_start(page: Page, start: gr.Button) -> None:
    """Start makes a run of the form, or shows at the fields why there is none."""
    form, service = page.form, page.service

    def press(*given: object) -> tuple[Update, Update, Update | str]:
        values = form.values(given)
        started: dict[str, Any] = {}

        def begin() -> dict[str, Any]:
            started["run"] = service.start(settings_from_values(values), name=run_name(values))
            started["first"] = service.queue_position(started["run"]) or 0
            return {}

        answer = answer_or_problems(values, begin, pressed=True)
        # its name was for this run: the next one gets another
        return (gr.skip(), started, "") if started else (answer, gr.skip(), gr.skip())

    outputs = [page.components[PREVIEW], page.components[LIVE], form.fields[RUN_NAME]]
    start.click(press, list(form.fields.values()), outputs, trigger_mode="once", **EVENT_OPTIONS)
