"""Help in a browser: opened from the page, read by keyboard, in light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Server, Tab, playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
expect = playwright.expect
AXE = Path(__file__).resolve().parents[1] / "vendor" / "axe.min.js"
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 420, "height": 900}


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    yield context
    context.close()


def open_help(tab: Tab, context: Any) -> Any:
    with context.expect_page() as opened:
        tab.page.get_by_role("link", name="Help").click()
    expect(opened.value.get_by_role("heading", level=1)).to_have_text("Help")
    return opened.value


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_help_opens_beside_the_page_and_its_documents_lead_to_each_other(context: Any, server: Server) -> None:
    tab = Tab(context, server)
    tab.field("max_steps").fill("7")
    page = open_help(tab, context)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    expect(page).to_have_title("Tuning Fork help")
    page.get_by_role("link", name="Your first run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your first run")
    page.get_by_role("main").get_by_role("link", name="Memory").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Memory")
    page.get_by_role("navigation").get_by_role("link", name="Several devices").click()
    assert page.url.endswith("/fork/help/memory#several-devices")
    page.get_by_role("link", name="Help").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Help")
    assert requests and all(url.startswith(server.address) for url in requests), "nothing is asked of another host"
    tab.page.get_by_role("link", name="Help").click()
    assert len(context.pages) == 2, "a second press uses the same tab"
    expect(tab.field("max_steps")).to_have_value("7")
    assert tab.faults == []


def test_help_is_light_or_dark_as_the_page_is(context: Any, server: Server) -> None:
    tab = Tab(context, server)
    page = open_help(tab, context)
    light = background(page)
    tab.page.get_by_role("button", name="Light or dark").click()
    page.wait_for_function("(light) => getComputedStyle(document.body).backgroundColor !== light", arg=light)
    dark = background(page)
    page.reload()
    assert background(page) == dark != light
    tab.page.get_by_role("button", name="Light or dark").click()
    page.wait_for_function("(light) => getComputedStyle(document.body).backgroundColor === light", arg=light)


def test_help_is_read_by_keyboard(context: Any, server: Server) -> None:
    page = context.new_page()
    page.goto(server.with_token())
    page.goto(f"{server.address}fork/help/measurements")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the text")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Table: Methods")).to_be_focused()


def test_an_example_can_be_saved_and_opened_in_the_form(context: Any, server: Server, tmp_path: Path) -> None:
    tab = Tab(context, server)
    page = open_help(tab, context)
    page.get_by_role("link", name="Your first run").click()
    with page.expect_download() as saved:
        page.get_by_role("link", name="lora-own-prompts.json").click()
    saved.value.save_as(tmp_path / "lora-own-prompts.json")
    tab.page.get_by_label("settings file").set_input_files(tmp_path / "lora-own-prompts.json")
    expect(tab.field("max_steps")).to_have_value("120")
    expect(tab.field("method.lora.r")).to_have_value("16")
    assert tab.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing_in_help_and_nothing_is_wider_than_the_window(
    browser: Any, server: Server, size: Any, scheme: Any
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.goto(server.with_token())
    for name in ("", "/settings", "/measurements", "/command-line", "/first-run", "/nothing"):
        page.goto(f"{server.address}fork/help{name}")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run().then((result) => result.violations)")
        assert [(violation["id"], violation["nodes"][0]["html"]) for violation in violations] == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    context.close()
