"""From the first look over Start to the end of a run: what is in sight, what a second press does, what is told when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, playwright
from support.tiny_models import changed, tiny_model, without

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
expect = playwright.expect


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []
    context.close()


def top(tab: Tab, selector: str) -> float:
    return tab.page.evaluate("(one) => document.querySelector(one).getBoundingClientRect().top", selector)


def in_window(tab: Tab, locator: Any) -> bool:
    return locator.evaluate(
        "(one) => { const box = one.getBoundingClientRect();"
        " const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);"
        " return box.top >= 0 && box.bottom <= innerHeight && one.contains(over); }"
    )


def test_a_run_can_be_stopped_wherever_the_page_is_scrolled_to_and_a_second_press_queues(tab: Tab) -> None:
    empty = tab.page.locator(".tf-empty")
    expect(empty).to_contain_text("Press Start training")
    assert in_window(tab, empty), "the first screen says what to do"
    assert empty.bounding_box()["height"] < 150, "and is no empty box"
    time = tab.page.locator(".tf-tile").last
    expect(time).to_contain_text("run once to learn how long")
    name = tab.field("run_name")
    first = tab.press_start(max_steps="3000", run_name="the first")
    expect(name).to_have_value("", timeout=20_000)
    expect(empty).to_have_text("The first point is on its way.")
    before = top(tab, f"[data-run={first}]")
    tab.wait_points(first, 1)
    tab.page.wait_for_timeout(300)
    assert abs(top(tab, f"[data-run={first}]") - before) < 60, "Stop in the row does not jump away"
    tab.page.locator("#tf-start").click()
    expect(tab.page.locator(".tf-toast")).to_contain_text("It waits in line: 1 run goes first.", timeout=SLOW)
    running = tab.page.get_by_role("region", name="Running now")
    expect(running).to_contain_text("1 other run in line")
    tab.page.mouse.move(900, 500)
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.page.wait_for_timeout(200)
    assert tab.page.evaluate("scrollY") > 200, "the page is longer than the window"
    stop = running.get_by_role("button", name="Stop run the first")
    assert in_window(tab, stop) and in_window(tab, tab.page.locator("#tf-start")), "the form stays"
    tab.page.set_viewport_size({"width": 420, "height": 900})
    tab.page.wait_for_timeout(300)
    assert in_window(tab, stop), "on a phone too"
    (second,) = [run for run in tab.ids() if run != first]
    stop.click()
    tab.wait_state(first, "cancelled")
    running.get_by_role("button", name="Stop run lora").click()
    tab.wait_state(second, "cancelled")
    expect(running).to_be_hidden()
    expect(time).to_contain_text("for 3,000 updates", timeout=20_000)
    assert "run once to learn how long" not in time.inner_text(), "without a change in the form or a reload"


def test_methods_that_the_task_refuses_are_greyed_with_the_reason_before_the_press(tab: Tab, tmp_path: Path) -> None:
    methods = tab.page.get_by_role("group", name="Method", exact=True)
    refused = ("Prompt tuning", "P-tuning", "Prompt engineering", "Retrieval")
    for name in refused:
        expect(methods.get_by_label(name, exact=True)).to_be_enabled()
    methods.get_by_text("Prompt tuning", exact=True).click()
    picture = tab.page.locator(".tf-network summary")
    expect(picture).to_contain_text("What Prompt tuning trains", timeout=20_000)
    tab.page.get_by_role("group", name="Task", exact=True).get_by_text("choose a class", exact=True).click()
    for name in refused[1:]:
        expect(methods.get_by_label(name, exact=True)).to_be_disabled(timeout=20_000)
    expect(methods).to_contain_text(f"Greyed: {', '.join(refused)} (only for writing text).")
    methods.get_by_text("IA3", exact=True).click()
    expect(picture).to_contain_text("What IA3 trains", timeout=20_000)
    expect(methods.get_by_label("Prompt tuning", exact=True)).to_be_disabled()
    tab.field("optimizer.learning_rate").fill("abc")
    expect(tab.page.locator("#f-optimizer-learning_rate .tf-problem")).to_be_visible(timeout=20_000)
    methods.get_by_text("Adapter", exact=True).click()
    expect(picture).to_be_hidden(timeout=20_000)  # of IA3: not the picture of the method that is chosen now
    tab.field("optimizer.learning_rate").fill("")
    # a model that only some methods can train: the chosen one is marked, not all of them
    tiny_model("bert", tmp_path / "bert", max_position_embeddings=128)
    folder = changed(tmp_path, without("pooler"), "bert")
    tab.field("model").fill(str(folder))
    tab.field("model").press("Enter")
    wrong = tab.page.locator("#f-method-name .tf-problem")
    expect(wrong).to_be_visible(timeout=20_000)
    outlined = methods.locator("input").evaluate_all(
        "(all) => all.filter((one) => getComputedStyle(one).outlineStyle === 'solid'"
        " && parseFloat(getComputedStyle(one).outlineWidth) > 0).length"
    )
    assert outlined <= 1
    expect(methods.get_by_label("Full", exact=True)).to_be_enabled()
    expect(methods.get_by_label("LoRA", exact=True)).to_be_disabled()


def test_what_is_wrong_is_reported_in_the_words_of_the_page_and_moves_nothing(tab: Tab) -> None:
    tiles = top(tab, ".tf-tiles")
    for path, typed, message in (
        ("gradient_accumulation_steps", "x", "Accumulation steps: needs a whole number, not 'x'; try 4."),
        ("max_steps", "-1", "Updates: -1 is outside the limit: 1 to 10,000,000; try 60."),
        ("method.lora.r", "0", "Rank r: 0 is outside the limit"),
    ):
        before = tab.field(path).input_value()
        tab.field(path).fill(typed)
        problem = tab.page.locator(f"#f-{path.replace('.', '-')} .tf-problem")
        expect(problem).to_contain_text(message, timeout=20_000)
        expect(tab.page.get_by_text("These numbers belong to the last settings that could be read.")).to_be_visible()
        assert top(tab, ".tf-tiles") == tiles, "the numbers stay where they are while a person types"
        tab.field(path).fill(before)
        expect(problem).to_have_count(0, timeout=20_000)
    words = tab.page.evaluate(
        "(texts) => import(new URL('fork/static/page/setting_names.js', document.baseURI).href)"
        ".then((page) => texts.map(page.inPageWords))",
        [
            "set data.encoding, or leave such rows out with data.bad_rows skip.",
            "method.index of a run; data.packing to false; the file data.columns.csv stays",
        ],
    )
    assert words == [
        "set “Encoding”, or leave such rows out with “Bad rows: leave them out”.",
        "“Index” of a run; “Packing: no”; the file data.columns.csv stays",
    ]
    tab.field("model").fill("/no/such/model")
    tab.field("model").press("Enter")
    expect(tab.page.locator("#f-model .tf-problem")).to_be_visible(timeout=20_000)
    expect(tab.page.locator("#tf-your-data")).to_contain_text("The tokens are not shown", timeout=20_000)
    assert "needs a change" not in tab.page.locator("#tf-your-data summary").first.inner_text(), "the rows are fine"
    # Escape closes a list, and a click opens it again
    source = tab.field("data.source")
    offered = tab.page.get_by_role("option", name="Reviews with a verdict")
    source.click()
    expect(offered).to_be_visible()
    source.press("Escape")
    expect(offered).to_be_hidden()
    source.click()
    expect(offered).to_be_visible()


def test_a_problem_in_a_closed_part_stays_shown_and_start_leads_to_its_field(tab: Tab) -> None:
    more, problem = tab.page.get_by_role("button", name="More settings"), tab.page.locator(".tf-general .tf-problem")
    more.click()
    tab.field("eval.every").fill("-1")
    expect(problem).to_contain_text("Evaluate every: -1 is outside the limit", timeout=20_000)
    expect(tab.page.locator("#f-eval-every .tf-problem")).to_be_visible()
    more.click()
    expect(tab.field("eval.every")).to_be_hidden()
    expect(problem).to_have_count(1)
    tab.page.get_by_role("button", name="Start training").click()
    expect(tab.field("eval.every")).to_be_focused(timeout=20_000)
    expect(problem).to_have_count(1)
    more.click()
    problem.get_by_role("button", name="Show the field").click()
    expect(tab.field("eval.every")).to_be_focused(timeout=20_000)
    tab.field("eval.every").fill("5")
    expect(problem).to_have_count(0, timeout=20_000)
