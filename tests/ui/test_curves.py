"""The curves and the table of runs in a real browser, over runs that are stored already: where points lie, which look
each run has, what is told of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, open_server, playwright
from support.stored_runs import SECONDS, store_run
from tuning.runs.store import COLOR_SLOTS
from tuning.ui.memory_bar import PALETTE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
MANY = len(PALETTE) + 2
ALIKE = tuple(f"r{i:04d}" for i in range(1, MANY + 1))
CLASSES, OTHER_DATA = "r0101", "r0102"
TEXTS = {"r0001": ("the first row of one", "the second"), "r0002": ("a row of another",)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    for run in ALIKE:
        store_run(home, run, texts=TEXTS.get(run, ()))
    store_run(home, CLASSES, task="sequence_classification", seed=3)
    store_run(home, OTHER_DATA, data={"source": "pirate"})
    with open_server(home) as server:
        yield server


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield context
    context.close()


def shown(context: Any, server: Server, *runs: str) -> Tab:
    tab = Tab(context, server, f"?runs={','.join(runs)}")
    for run in runs:
        tab.wait_points(run, 6)
    return tab


def again(tab: Tab) -> None:
    tab.page.reload()
    tab.page.wait_for_selector(".tf-plot .main-svg", timeout=SLOW)


def trace(tab: Tab, name: str) -> dict[str, Any]:
    return tab.page.evaluate(
        "(uid) => { const one = document.querySelector('.tf-plot').data.find((each) => each.uid === uid);"
        " return {x: one.x, color: one.line.color, dash: one.line.dash ?? 'solid', symbol: one.marker?.symbol}; }",
        name,
    )


def axis(tab: Tab, name: str) -> None:
    tab.page.get_by_role("combobox", name="by", exact=True).select_option(name)


def test_an_evaluation_lies_at_the_update_that_it_follows_on_every_axis(context: Any, server: Server) -> None:
    tab = shown(context, server, "r0001")
    for name, each in (("seconds", SECONDS), ("examples", 16), ("trained_tokens", 100), ("step", 1)):
        axis(tab, name)
        tab.page.wait_for_function(
            "([uid, x]) => document.querySelector('.tf-plot').data.find((one) => one.uid === uid)?.x[1] === x",
            arg=["r0001-smooth", 2 * each],
        )
        assert trace(tab, "r0001-eval")["x"] == [0, 2 * each, 4 * each, 6 * each], name
    between = tab.page.evaluate(
        "import(new URL('fork/static/page/curves.js', document.baseURI).href).then((curves) => curves"
        ".positionOfEvaluation('seconds', {step: 5, seconds: 9}, [{step: 2, seconds: 1}, {step: 6, seconds: 3}]))"
    )
    assert between == 2.5, "in proportion, where the update itself was left out of a long run"
    assert tab.faults == []


def test_no_two_of_the_shown_runs_look_alike(context: Any, server: Server) -> None:
    assert len(PALETTE) == COLOR_SLOTS
    tab = shown(context, server, *ALIKE)
    styles = {run: trace(tab, f"{run}-smooth") for run in ALIKE}
    assert len({(style["color"], style["dash"]) for style in styles.values()}) == MANY
    assert {style["color"] for style in styles.values()} == set(PALETTE)
    assert [style["dash"] for style in styles.values()].count("solid") == len(PALETTE), "colours first"
    marks = {(trace(tab, f"{run}-eval")["color"], trace(tab, f"{run}-eval")["symbol"]) for run in ALIKE}
    assert len(marks) == MANY, "evaluations, whose lines are dotted, by their marks"
    dots = tab.page.evaluate(
        "(runs) => runs.map((run) => { const dot = document.querySelector(`[data-run=${run}] .tf-dot`);"
        " return getComputedStyle(dot).background; })",
        list(ALIKE),
    )
    assert len(set(dots)) == MANY, "the table shows the same"
    for run in ALIKE[1:9]:  # two of one slot alone: the second takes a colour that is free
        tab.page.get_by_label(f"Show run {run}").uncheck()
    again(tab)
    for run in (ALIKE[0], ALIKE[9]):
        tab.wait_points(run, 6)
    first, last = trace(tab, f"{ALIKE[0]}-smooth"), trace(tab, f"{ALIKE[9]}-smooth")
    assert first["color"] != last["color"] and first["dash"] == last["dash"] == "solid"
    assert tab.faults == []


def test_curves_that_cannot_be_compared_say_so(context: Any, server: Server) -> None:
    expect = playwright.expect
    tab = shown(context, server, "r0001", "r0002")
    note = tab.page.get_by_role("note")
    expect(note).to_have_count(0)
    tab.page.get_by_label(f"Show run {CLASSES}").check()
    expect(note).to_contain_text("different tasks (“choose a class”, “write text”)", timeout=20_000)
    tab.page.get_by_label(f"Show run {OTHER_DATA}").check()
    expect(note).to_contain_text("data (“pirate”, “reviews”)", timeout=20_000)
    tab.page.get_by_role("combobox", name="show", exact=True).select_option("learning_rate")
    expect(note).to_have_count(0)
    assert tab.faults == []


def test_the_view_of_curves_is_stored_for_the_next_visit(context: Any, server: Server) -> None:
    tab = shown(context, server, "r0001")
    axis(tab, "seconds")
    tab.page.get_by_label("log scale").check()
    tab.page.get_by_label("smoothing").fill("25")
    again(tab)
    tab.wait_points("r0001", 6)
    assert tab.page.get_by_role("combobox", name="by", exact=True).input_value() == "seconds"
    assert tab.page.get_by_label("log scale").is_checked()
    assert tab.page.get_by_label("smoothing").input_value() == "25"
    drawn = tab.page.evaluate("document.querySelector('.tf-plot').layout.yaxis.type")
    assert drawn == "log" and trace(tab, "r0001-smooth")["x"][-1] == 6 * SECONDS
    tab.page.evaluate("localStorage.setItem('tuning-fork-chart', JSON.stringify({axis: 'nonsense', smoothing: 'x'}))")
    again(tab)
    tab.wait_points("r0001", 6)
    assert tab.page.get_by_role("combobox", name="by", exact=True).input_value() == "step"
    assert tab.faults == []


def test_the_table_says_which_run_of_which_data_and_task_it_is(context: Any, server: Server) -> None:
    tab = shown(context, server, "r0001")
    heads = tab.page.locator(".tf-runs th").all_inner_texts()
    assert {"data", "updates", "method"} <= set(heads)
    row = tab.page.locator(f"[data-run={CLASSES}]")
    for text in (CLASSES, "reviews", "choose a class", "6/6", "seed 3"):
        playwright.expect(row).to_contain_text(text)
    other = tab.page.locator(f"[data-run={OTHER_DATA}]")
    for text in (OTHER_DATA, "pirate", "write text", "seed 0"):
        playwright.expect(other).to_contain_text(text)
    assert "cosine" not in row.inner_text(), "what is the same in all of them is not repeated"
    tab.page.set_viewport_size({"width": 420, "height": 900})
    outside = tab.page.evaluate(
        "(run) => [...document.querySelectorAll(`[data-run=${run}] td`)]"
        ".map((cell) => [cell, cell.getBoundingClientRect()])"
        ".filter(([, box]) => box.left < 0 || box.right > innerWidth)"
        ".map(([cell]) => cell.textContent)",
        CLASSES,
    )
    assert outside == [], "on a phone nothing of a run is cut off"
    assert tab.faults == []


def test_an_example_that_nobody_has_changed_follows_the_run_that_is_asked(context: Any, server: Server) -> None:
    tab = shown(context, server, "r0001")
    panel = tab.page.get_by_role("region", name="Ask the model")
    prompt = panel.get_by_label("prompt", exact=True)
    playwright.expect(prompt).to_have_value("the first row of one", timeout=SLOW)
    panel.get_by_label("run").select_option("r0002")
    playwright.expect(prompt).to_have_value("a row of another", timeout=20_000)
    panel.get_by_label("run").select_option("r0001")
    panel.get_by_role("button", name="the second").click()
    panel.get_by_label("run").select_option("r0002")
    playwright.expect(prompt).to_have_value("a row of another", timeout=20_000)
    prompt.fill("what I asked myself")
    panel.get_by_label("run").select_option("r0001")
    playwright.expect(panel.get_by_role("button", name="the second")).to_be_visible(timeout=20_000)
    assert prompt.input_value() == "what I asked myself"
    assert tab.faults == []
