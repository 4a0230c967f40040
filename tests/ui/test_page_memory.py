"""Memory on the page beyond the bar: its charts, a fix applied by one click, and estimates against measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, open_server, pick, playwright
from support.tiny_models import big_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []
    context.close()


@pytest.fixture
def first_tab(browser: Any, tmp_path: Path) -> Iterator[Tab]:
    """The page on a home folder without any run."""
    with open_server(tmp_path / "home") as server:
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        tab = Tab(context, server)
        yield tab
        assert tab.faults == []
        context.close()


def opened(tab: Tab, title: str) -> Any:
    """The folded part with this title, opened."""
    part = tab.page.locator("details.tf-mem-details", has=tab.page.get_by_text(title, exact=True))
    part.locator("summary").click()
    return part


def drawn(picture: Any) -> list[float]:
    """Heights of the points of a picture's main line, from its foot up."""
    path = picture.locator("path.tf-mini-line").get_attribute("d")
    return [120 - float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]


def check_other_methods(part: Any, pictures: Any) -> None:
    """Named once for both charts, shown by their name; what is higher than a chart leaves it."""
    full = part.locator("path.tf-mini-other[data-method=full]")
    assert full.count() == 2 and part.get_by_text("Prompt tuning", exact=True).filter(visible=True).count() == 1
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", full.nth(1).get_attribute("d"))]
    assert min(heights) < 8 and heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[-2], "no plateau at the chart's top"
    assert pictures.nth(2).locator("g[clip-path] > path[data-method=full]").count() == 1
    names = part.locator("text.tf-mini-name[data-method=full]")
    assert [names.nth(i).is_visible() for i in (0, 1)] == [False, False]
    part.get_by_role("button", name="Full", exact=True).focus()
    for i in (0, 1):
        playwright.expect(names.nth(i)).to_be_visible()
        assert re.match(r"Full: [\d.]+ MiB to [\d.]+ MiB", names.nth(i).text_content())


def test_the_charts_of_memory_are_drawn_and_a_fix_changes_the_form(tab: Tab) -> None:
    with tab.page.expect_response(re.compile(r"fork/memory$")):  # asked for when the part is opened
        part = opened(tab, "More about memory")
    pictures = part.locator("svg.tf-mini")
    playwright.expect(pictures).to_have_count(3, timeout=30_000)
    step, rows, lengths = (drawn(pictures.nth(i)) for i in range(3))
    assert len(step) > 6 and max(step) > step[0], "memory rises within a step"
    for rising in (rows, lengths):
        assert len(rising) > 4 and rising == sorted(rising) and rising[-1] > rising[0]
    for i in range(3):
        assert pictures.nth(i).locator(".tf-mini-dot").count() == 1
    check_other_methods(part, pictures)
    playwright.expect(part).to_contain_text(re.compile(r"Highest at: .+, [\d.]+ MiB of tensors"))
    shares = part.locator("table.tf-several tbody tr")
    assert [shares.nth(n).locator("th").inner_text() for n in range(3)] == ["2", "4", "8"]
    assert "fits" in shares.first.inner_text()

    before, runs = tab.page.locator(".tf-tile").first.inner_text(), tab.ids()
    fix = part.locator(".tf-fixes li", has_text="micro-batch 4 -> 2, accumulation 4 -> 8")
    fix.get_by_role("button", name="Apply").click()
    playwright.expect(tab.field("micro_batch_size")).to_have_value("2", timeout=30_000)
    playwright.expect(tab.field("gradient_accumulation_steps")).to_have_value("8")
    tile = tab.page.locator(".tf-tile").first
    playwright.expect(tile).to_contain_text("2 × 8 = 16", timeout=30_000)
    assert "4 × 4 = 16" in before, "the effective batch stays what it was"
    assert tab.ids() == runs, "a fix starts nothing"
    playwright.expect(part).to_contain_text(re.compile(r"All [\d]+ rows at once would fit this machine\."))


@pytest.mark.slow
def test_the_table_is_awaited_for_the_device_that_was_chosen(tab: Tab, tmp_path: Path) -> None:
    memory = tab.page.get_by_role("region", name="Estimated memory")
    pick(tab, "would_fit_on", "T4 16 GB")
    playwright.expect(memory).to_contain_text("of 14.6 GiB", timeout=30_000)
    with tab.page.expect_request(re.compile("fork/memory.*T4"), timeout=30_000) as sent:
        tab.field("model").fill(str(big_model(tmp_path / "a big model", width=8064)))
        tab.field("model").press("Enter")
    assert sent.value.url.endswith("?device=T4%2016%20GB")
    playwright.expect(memory).to_contain_text("The estimate is traced.", timeout=SLOW)

    odd = big_model(tmp_path / "an odd model")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"hidden_act": "nonsense"}))
    tab.field("model").fill(str(odd))
    tab.field("model").press("Enter")
    playwright.expect(memory).to_contain_text(re.compile("approximate, with a wider band: .+nonsense"), timeout=SLOW)
    playwright.expect(memory).to_contain_text("of 14.6 GiB")


def test_the_error_of_a_finished_run_joins_the_calibration(first_tab: Tab) -> None:
    tab = first_tab
    part = tab.page.locator("details.tf-mem-details", has=tab.page.get_by_text("Estimates against measurements"))
    assert part.is_hidden(), "nothing has been measured yet"
    tab.page.get_by_role("group", name="Method", exact=True).get_by_text("Full", exact=True).click()
    playwright.expect(tab.page.locator(".tf-tiles")).to_contain_text("(100\u00a0%)", timeout=30_000)
    run = tab.press_start(max_steps="6")
    tab.wait_state(run, "finished")
    playwright.expect(part).to_be_visible(timeout=SLOW)
    part.locator("summary").click()
    dot = part.locator("circle")
    playwright.expect(dot).to_have_count(1)
    title = dot.locator("title").text_content()
    sizes = re.search(r"estimated ([\d.]+) MiB, measured ([\d.]+) MiB", title)
    assert sizes, title
    estimated, measured = map(float, sizes.groups())
    error = 100 * (estimated / measured - 1)
    assert -0.5 < error < 25, "the widest micro-batch the data can give is at least what a short run met"
    summary = re.search(r"1 run: error ([\d.]+) % in the middle, ([\d.]+) % at most", part.inner_text())
    assert summary and summary[1] == summary[2]
    assert float(summary[1]) == pytest.approx(abs(error), abs=100 * 0.06 / measured + 0.6)
    cell = tab.page.locator(f"[data-run={run}] [data-head=memory]").inner_text()
    assert re.fullmatch(rf"{sizes[2]} MiB\s+est. {sizes[1]} MiB, [+\u2212]?{float(summary[1]):.1f} %", cell), cell

    tab.page.get_by_role("group", name="Method", exact=True).get_by_text("LoRA", exact=True).click()
    playwright.expect(tab.page.locator(".tf-tiles")).not_to_contain_text("(100\u00a0%)", timeout=30_000)
    other = tab.press_start(max_steps="6")
    tab.wait_state(other, "finished")
    playwright.expect(dot).to_have_count(2, timeout=SLOW)
    errors = []
    for run_id in (run, other):
        cell = tab.page.locator(f"[data-run={run_id}] [data-head=memory]").inner_text()
        errors.append(abs(float(re.search(r", [+\u2212]?([\d.]+) %", cell)[1])))
    summary = re.search(r"2 runs: error ([\d.]+) % in the middle, ([\d.]+) % at most", part.inner_text())
    assert float(summary[1]) == pytest.approx(sum(errors) / 2, abs=0.11) and float(summary[2]) == max(errors)
    axis_texts = part.locator("text.tf-mini-text[text-anchor=start], text.tf-mini-text[text-anchor=middle]")
    assert axis_texts.all_text_contents()[0] == "0 B" and axis_texts.count() == 2, "the lower axis has numbers too"

    tab.page.set_viewport_size({"width": 420, "height": 900})
    row = tab.page.locator(f"[data-run={other}]")
    button = row.get_by_label(re.compile("Actions for")).bounding_box()
    for what in (".tf-chip", ".tf-count", ".tf-name", "[data-head=memory]"):
        box = row.locator(what).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 420, f"{what} is cut"
        beside = box["x"] + box["width"] <= button["x"] or box["y"] >= button["y"] + button["height"]
        assert beside, f"the menu lies over {what}"
    assert tab.page.get_by_role("region", name="Runs").evaluate("(node) => node.scrollWidth <= node.clientWidth")


def test_without_updates_the_page_speaks_of_the_evaluation_and_offers_shorter_prompts(tab: Tab) -> None:
    data = tab.field("data.source")
    data.click()
    data.fill("people-questions")
    data.press("Enter")
    tab.page.get_by_role("group", name="Method", exact=True).get_by_text("Retrieval", exact=True).click()
    playwright.expect(tab.page.locator(".tf-tiles")).to_contain_text("evaluation rows", timeout=30_000)
    passages = tab.field("method.retrieval.top_k")
    passages.fill("8")
    passages.press("Tab")
    part = opened(tab, "More about memory")
    playwright.expect(part).to_contain_text("All 100 held-out rows at once fit this machine.", timeout=30_000)
    assert part.locator("table.tf-several").count() == 0
    fix = part.locator(".tf-fixes li")
    playwright.expect(fix).to_have_count(1)
    assert re.search(r"−[\d.]+ MiB · −\d+ % time · top_k 8 -> 4", fix.inner_text()), fix.inner_text()
    fix.get_by_role("button", name="Apply").click()
    playwright.expect(passages).to_have_value("4", timeout=30_000)
    tab.page.get_by_role("button", name="More settings").click()
    run = tab.press_start(data__eval_rows="4")
    tab.wait_state(run, "finished")
    cell = tab.page.locator(f"[data-run={run}] [data-head=memory]").inner_text()
    assert re.fullmatch(r"[\d.]+ MiB\s+est. [\d.]+ MiB, [+\u2212]?0\.\d %", cell), cell
