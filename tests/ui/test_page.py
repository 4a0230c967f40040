"""The page in a real browser, over a real server in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context
    context.close()


@pytest.fixture
def tab(context: Any, server: Server) -> Iterator[Tab]:
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []


def test_start_streams_points_keeps_the_zoom_and_survives_a_reload(tab: Tab, context: Any, server: Server) -> None:
    run = tab.press_start(max_steps="40")
    tab.wait_points(run, 3)
    tab.page.evaluate("Plotly.relayout(document.querySelector('.tf-plot'), {'xaxis.range': [1, 7]})")
    tab.wait_points(run, len(tab.points(run)) + 3)
    layout = tab.page.evaluate("document.querySelector('.tf-plot').layout.xaxis.range")
    assert layout == [1, 7], "a new point moved the zoom"
    tab.page.reload()
    second = Tab(context, server)  # a second tab sees the same run
    for page_tab in (tab, second):
        page_tab.wait_state(run, "finished")
        page_tab.wait_points(run, 40)
        assert page_tab.points(run) == list(range(1, 41)), "a point was lost"
    assert second.faults == []


def test_stop_keeps_what_was_learned_and_it_can_be_asked(tab: Tab) -> None:
    run = tab.press_start(max_steps="5000", run_name="to be stopped")
    tab.wait_points(run, 2)
    tab.page.get_by_role("button", name="Stop to be stopped").click()
    tab.wait_state(run, "cancelled")
    learned = len(tab.points(run))
    assert learned >= 2
    panel = tab.page.get_by_role("region", name="Ask the model")
    panel.get_by_label("run").select_option(run)
    panel.get_by_label("prompt").fill("The film was <b>dull</b>.\nOverall:")
    panel.get_by_role("button", name="Ask", exact=True).click()
    tab.page.wait_for_selector(".tf-answer-row", timeout=SLOW)
    assert tab.page.locator(".tf-answer").count() == 2
    assert tab.page.locator(".tf-prompt").first.inner_text().startswith("The film was <b>dull</b>.")


def test_two_runs_lie_on_one_pair_of_axes_and_the_address_says_which(tab: Tab, context: Any, server: Server) -> None:
    first = tab.press_start(max_steps="6", run_name="one")
    second = tab.press_start(optimizer__learning_rate="0.0001", run_name="two")
    for run in (first, second):
        tab.wait_state(run, "finished")
        tab.wait_points(run, 6)
    assert set(tab.page.url.partition("runs=")[2].split(",")) >= {first, second}
    again = Tab(context, server, f"?runs={second}")
    again.wait_points(second, 6)
    assert again.points(first) == []
    assert again.faults == []


def test_use_these_settings_again_rename_and_delete_with_undo(tab: Tab) -> None:
    run = tab.press_start(max_steps="4", optimizer__learning_rate="0.002", run_name="kept")
    tab.wait_state(run, "finished")
    tab.field("optimizer.learning_rate").fill("")
    row = tab.page.locator(f"[data-run={run}]")
    row.get_by_label("Actions for kept").click()
    row.get_by_role("button", name="Use these settings again").click()
    playwright.expect(tab.field("optimizer.learning_rate")).to_have_value("0.002", timeout=10_000)
    row.get_by_label("Actions for kept").click()
    row.get_by_role("button", name="Rename").click()
    row.get_by_label("New name").fill("<i>renamed</i>")
    row.get_by_label("New name").press("Enter")
    playwright.expect(row.locator(".tf-name")).to_have_text("<i>renamed</i>", timeout=10_000)
    row.locator("summary").click()
    row.get_by_role("button", name="Delete").click()
    playwright.expect(row).to_have_count(0, timeout=10_000)
    tab.page.get_by_role("button", name="Undo").click()
    playwright.expect(row).to_have_count(1, timeout=10_000)


def test_numbers_follow_the_form_and_the_form_survives_a_reload(tab: Tab) -> None:
    tab.field("micro_batch_size").fill("2")
    playwright.expect(tab.page.locator(".tf-tile").first).to_contain_text("2 × 4 = 8", timeout=10_000)
    tab.page.wait_for_timeout(500)
    tab.page.reload()
    playwright.expect(tab.page.locator(".tf-tile").first).to_contain_text("2 × 4 = 8", timeout=20_000)


def test_a_learning_rate_that_is_no_number_is_shown_at_its_field(tab: Tab) -> None:
    rate = tab.field("optimizer.learning_rate")
    rate.fill("abc")
    field = tab.page.locator("#f-optimizer-learning_rate")
    playwright.expect(field.locator(".tf-problem")).to_contain_text("abc", timeout=10_000)
    before = tab.ids()
    tab.page.get_by_role("button", name="Start training").click()
    tab.page.wait_for_timeout(1000)
    assert tab.ids() == before
    assert rate.input_value() == "abc"
    assert rate.get_attribute("aria-invalid") == "true"
    rate.fill("0.001")
    playwright.expect(field.locator(".tf-problem")).to_have_count(0, timeout=10_000)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, server: Server, dark: bool) -> None:
    context = browser.new_context(viewport={"width": 420, "height": 900})
    tab = Tab(context, server)
    if dark:
        tab.page.get_by_role("button", name="Light or dark").click()
        assert tab.page.evaluate("document.body.classList.contains('dark')")
    tab.page.wait_for_timeout(500)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 420
    assert tab.faults == []
    context.close()


def test_a_tab_holds_no_connection(server: Server) -> None:
    import json

    config = json.loads(server.get("config"))
    assert config["connect_heartbeat"] is False


def test_a_killed_server_loses_no_point_and_no_typed_text(browser: Any, tmp_path: Path) -> None:
    own = Server(tmp_path)
    own.start()
    context = browser.new_context()
    try:
        tab = Tab(context, own)
        run = tab.press_start(max_steps="5000")
        tab.wait_points(run, 3)
        seen = tab.points(run)
        own.kill()
        tab.field("optimizer.learning_rate").fill("0.00")
        playwright.expect(tab.page.locator(".tf-link")).to_have_text("reconnecting…", timeout=20_000)
        own.start()
        tab.wait_state(run, "interrupted")
        assert tab.field("optimizer.learning_rate").input_value() == "0.00"
        tab.wait_points(run, len(seen))
        assert tab.points(run)[: len(seen)] == seen
        assert tab.faults == []
    finally:
        context.close()
        own.stop()
