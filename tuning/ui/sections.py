"""A section of the page: a component that one browser script draws, and its connection to the form and to others.

Each section is one `Section` record in a module of its own, and one entry in `SECTIONS` of `tuning.ui.page`. The text
that a person or a model wrote travels in the component's value only, and the script shows it through `textContent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

import gradio as gr

from tuning.runs.service import RunService
from tuning.ui.form import Form
from tuning.ui.values import Values

EMPTY = "<div></div>"
"""The template of a section whose script makes all of its content."""
EVENT_OPTIONS: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}
"""For every listener of the page: answered at once, without a queue, an overlay or an entry in Gradio's API."""


class Region(Enum):
    """Where on the page a section lies; those of one region stand in the order of `SECTIONS`."""

    TOP = auto()
    BELOW_MODEL = auto()
    """In the form, below the field of the base model."""
    BELOW_DATA = auto()
    """In the form, below the field of the data."""
    ABOVE_START = auto()
    """Above the button Start, in sight wherever the page is scrolled to."""
    MAIN = auto()
    """The wide column beside the form."""


class InitialValue(Protocol):
    """What the section's script draws at first, as JSON, for what stands in the form."""

    def __call__(self, service: RunService, values: Values) -> Mapping[str, Any]: ...


class Connection(Protocol):
    """Registers the events that the section triggers and those that change it."""

    def __call__(self, page: Page) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """One section: what it is called, where it lies, what it shows, which events it triggers."""

    kind: str
    """The key of the section in `SECTIONS` of assets/page.js."""
    name: str
    """The accessible name of what it shows."""
    region: Region
    script_sets_label: bool = False
    """True where the script makes one card that has the name as its label; else the component has it."""
    events: tuple[str, ...] = ()
    """The events that its script triggers; each is a listener of the component with that name.

    Gradio looks for these names, in quotation marks, in the component's JavaScript, and offers a listener for those
    that it finds there alone; so they stand in its statements, in a comment.
    """
    template: str = EMPTY
    """HTML that stands there before the script has come: constant, nothing is filled in."""
    has_script: bool = True
    """False for a section that the script of another one fills."""
    initial_value: InitialValue | None = None
    config: Callable[[], Mapping[str, Any]] | None = None
    """Makes the constants that the script needs, as JSON."""
    connect: Connection | None = None

    @property
    def element_id(self) -> str:
        """The id of the component's element in the document."""
        return "tf-" + self.kind.replace("_", "-")

    def build(self, service: RunService, values: Values) -> gr.HTML:
        """The component, added to the Blocks that are open."""
        props: dict[str, Any] = {"config": self.config()} if self.config else {}
        return gr.HTML(
            value=self.initial_value(service, values) if self.initial_value else None,
            html_template=self.template,
            js_on_load=self._statements() if self.has_script else None,
            elem_id=self.element_id,
            apply_default_css=False,
            **props,
        )

    def _statements(self) -> str:
        """The JavaScript that runs when the component is on the page: its name, then page.js draws in it."""
        # Gradio reads this comment: see `events`
        event_names = f"/* events {', '.join(map(repr, self.events))} */ " if self.events else ""
        label = f"element.setAttribute('role', 'group'); element.setAttribute('aria-label', {self.name!r}); "
        # the script is a module: the browser loads it once and never runs anything from another host
        return (
            f"{event_names}{'' if self.script_sets_label else label}"
            "import(new URL('fork/static/page.js', document.baseURI).href)"
            f".then((page) => page.mount({self.kind!r}, element, props, watch, trigger));"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The components of one page, for the connections between them."""

    blocks: gr.Blocks
    service: RunService
    form: Form
    components: Mapping[Section, gr.HTML]
