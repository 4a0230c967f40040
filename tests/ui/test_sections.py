"""The contract of the sections of the page: each is mounted, named, and reached by its record, never by an id."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from support.browser import ROOT, Server, Tab, playwright
from tuning.runs.service import RunService
from tuning.ui.page import SECTIONS, build_page
from tuning.ui.sections import Section

by_kind = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.kind)
UI_MODULES = sorted((ROOT / "tuning" / "ui").glob("*.py"))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    service = RunService(tmp_path_factory.mktemp("home"))
    yield build_page(service)
    service.close()


@pytest.fixture(scope="module")
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []
    context.close()


def component_of(section: Section, blocks: gr.Blocks) -> gr.HTML:
    (component,) = [block for block in blocks.blocks.values() if block.elem_id == section.element_id]
    assert isinstance(component, gr.HTML)
    return component


def test_no_two_sections_have_one_kind_or_one_name() -> None:
    assert len({section.kind for section in SECTIONS}) == len(SECTIONS)
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)


@by_kind
def test_a_section_is_one_component_of_the_page(section: Section, blocks: gr.Blocks) -> None:
    assert component_of(section, blocks).html_template == section.template


@by_kind
def test_the_page_listens_to_every_event_that_a_section_triggers(section: Section, blocks: gr.Blocks) -> None:
    component = component_of(section, blocks)
    heard = {
        event
        for listener in blocks.get_config_file()["dependencies"]
        for block, event in listener["targets"]
        if block == component._id
    }
    assert heard == set(section.events)


@by_kind
def test_the_script_of_a_section_triggers_the_events_of_its_record(section: Section) -> None:
    scripts = [ROOT / "assets" / "page.js", *(ROOT / "assets" / "page").glob("*.js")]
    fired = set(re.findall(r'trigger\("(\w+)"', "".join(path.read_text(encoding="utf-8") for path in scripts)))
    assert set(section.events) <= fired


@pytest.mark.browser
@pytest.mark.timeout(600)
@by_kind
def test_a_section_is_mounted(section: Section, tab: Tab) -> None:
    if section.has_script:
        mounted = tab.page.locator(f"#{section.element_id} [data-mounted={section.kind}]")
        playwright.expect(mounted).to_be_attached()


@pytest.mark.browser
@pytest.mark.timeout(600)
@by_kind
def test_a_section_has_an_accessible_name(section: Section, tab: Tab) -> None:
    # attached: the cards of what trains and of what to know before Start are hidden while they are empty
    named = tab.page.locator(f"#{section.element_id} [aria-label='{section.name}']").first
    playwright.expect(named).to_be_attached()
    role = named.evaluate("node => node.getAttribute('role') ?? node.localName")
    assert role in ("group", "region", "section")


@pytest.mark.parametrize("path", UI_MODULES, ids=lambda path: path.stem)
def test_no_module_names_a_section_by_the_id_of_its_element(path: Path) -> None:
    ids = {section.element_id for section in SECTIONS}
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not ids & {text for text in texts if isinstance(text, str)}


@pytest.mark.parametrize("path", UI_MODULES, ids=lambda path: path.stem)
def test_sections_alone_mount_scripts(path: Path) -> None:
    scripts = [
        keyword.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "js_on_load"
    ]
    silent = [isinstance(script, ast.Constant) and script.value is None for script in scripts]
    assert path.stem == "sections" or all(silent)
