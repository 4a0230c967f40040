"""The list of a page with many stored runs: its newest part, older ones on a press, any by name, deleted for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Server, Tab, open_server, playwright
from tuning.bench.stored import fill

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A home of 499 runs, the even ones deleted: 250 are listed."""
    home: Path = tmp_path_factory.mktemp("home")
    fill(home, 499, {"max_steps": 20})
    with open_server(home) as server:
        yield server


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context
    context.close()


def test_the_newest_are_listed_and_older_ones_come_on_a_press(context: Any, server: Server) -> None:
    tab = Tab(context, server)
    tab.wait_points("r0499", 20)
    assert tab.ids() == [f"r{i:04d}" for i in range(499, 100, -2)]
    tab.page.get_by_role("button", name="Older runs").click()
    tab.page.wait_for_selector("[data-run=r0001]")
    assert tab.ids() == [f"r{i:04d}" for i in range(499, 0, -2)]
    playwright.expect(tab.page.get_by_role("button", name="Older runs")).to_be_hidden()
    assert tab.faults == []


def test_an_old_run_is_found_by_its_name_shown_and_still_drawn_after_a_reload(context: Any, server: Server) -> None:
    tab = Tab(context, server)
    tab.wait_points("r0499", 20)
    find = tab.page.get_by_label("find a run")
    find.fill("run (7)")
    tab.page.wait_for_selector("[data-run=r0007]")
    assert tab.ids() == ["r0007"]
    tab.page.get_by_label("Show run (7)").check()
    tab.wait_points("r0007", 20)
    find.fill("")
    assert tab.ids()[-1] == "r0007" and len(tab.ids()) == 201, "what is shown stays in the list"
    tab.page.reload()
    tab.page.wait_for_selector("[data-run=r0007]")
    tab.page.wait_for_selector(".tf-plot")
    tab.wait_points("r0007", 20)
    playwright.expect(tab.page.get_by_label("Show run (7)")).to_be_checked()
    tab.page.get_by_label("find a run").fill("no such name")
    playwright.expect(tab.page.get_by_text("No run has this in its name")).to_be_visible()
    assert tab.faults == []


def test_a_change_in_another_tab_comes_without_the_list(context: Any, server: Server) -> None:
    tab, sizes = Tab(context, server), []
    tab.wait_points("r0499", 20)
    tab.page.on("response", lambda answer: sizes.append(len(answer.body())) if "fork/live" in answer.url else None)
    tab.page.evaluate(
        "fetch('fork/runs/r0497/rename', {method: 'POST', headers: {'content-type': 'application/json'},"
        " body: JSON.stringify({name: 'renamed elsewhere'})})"
    )
    playwright.expect(tab.page.locator("[data-run=r0497] .tf-name")).to_have_text("renamed elsewhere")
    assert sizes and max(sizes) < 5_000
    assert len(tab.ids()) == 200 and tab.faults == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """A home of its own, of nine runs, for what cannot be undone."""
    fill(tmp_path / "home", 9, {"max_steps": 20})
    with open_server(tmp_path / "home") as server:
        yield server


def test_a_run_is_deleted_brought_back_and_deleted_for_good(context: Any, small: Server) -> None:
    tab = Tab(context, small)
    row = tab.page.locator("[data-run=r0009]")
    row.get_by_label("Actions for run (9)").click()
    row.get_by_role("button", name="Delete").click()
    playwright.expect(row).to_have_count(0)
    tab.page.get_by_text("Deleted runs, and what is used on the disk").click()
    deleted = tab.page.locator("[data-deleted=r0009]")
    playwright.expect(tab.page.locator(".tf-deleted-runs")).to_contain_text("deleted runs")
    deleted.get_by_role("button", name="Bring back").click()
    playwright.expect(row).to_have_count(1)
    row.get_by_label("Actions for run (9)").click()
    row.get_by_role("button", name="Delete").click()
    deleted.get_by_role("button", name="Delete for good").click()
    deleted.get_by_role("button", name="Keep").click()
    deleted.get_by_role("button", name="Delete for good").click()
    deleted.get_by_role("button", name="Yes, delete for good").click()
    playwright.expect(deleted).to_have_count(0)
    assert "r0009" not in tab.ids() and tab.faults == []
    tab.page.reload()
    tab.page.wait_for_selector("[data-run=r0007]")
    assert "r0009" not in tab.ids()
