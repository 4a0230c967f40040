"""The page for everyone: axe-core finds nothing, and all of it can be reached and used without a mouse."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.browser import ROOT, Server, Tab, playwright, violations
from support.tiers import first_only

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
STYLE = ROOT / "assets" / "page.css"
PLACES = ("tf-header", "tf-fields", "tf-press", "tf-preview", "tf-data", "tf-live", "tf-results", "tf-ask")
"""The parts of the page in the order in which they are read."""
WIDE, PHONE = {"width": 1400, "height": 1000}, {"width": 420, "height": 900}

NUMBER_CONTROLS = """() => {
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getBoundingClientRect().width > 0;
  const all = [...document.querySelectorAll('input, select, textarea, button, summary, a[href], [tabindex="0"]')];
  let count = 0;
  for (const node of all) {
    if (node.disabled || node.tabIndex < 0 || !shown(node)) continue;
    if (node.type === 'radio' && !node.checked) continue;  // the arrow keys go to the others of a group
    node.dataset.number = count++;
  }
  return count;
}"""
FOCUSED = """async ([places, patient]) => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const parse = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]].reduce((sum, [value, weight]) =>
    sum + weight * (value <= 10.3 ? value / 3294.6 : ((value / 255 + .055) / 1.055) ** 2.4), 0);
  const behind = (one) => {
    const color = parse(getComputedStyle(one).backgroundColor);
    return (color[3] ?? 1) === 1 || !one.parentElement ? color : behind(one.parentElement);
  };
  const style = getComputedStyle(node);
  const [one, two] = [light(parse(style.outlineColor)), light(behind(node.parentElement))];
  const contrast = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
  const uncovered = () => {
    const box = node.getBoundingClientRect();
    const onTop = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return Boolean(onTop && (node.contains(onTop) || onTop.contains(node)));
  };
  // a list that Tab has just closed takes a moment to fade
  for (let wait = 0; patient && wait < 30 && !uncovered(); wait++) await new Promise((done) => setTimeout(done, 50));
  return {
    number: node.dataset.number === undefined ? null : Number(node.dataset.number),
    what: `${node.tagName} ${node.id || node.name || node.getAttribute('aria-label') || node.textContent.slice(0, 30)}`,
    list: node.getAttribute('role') === 'combobox',
    place: places.findIndex((id) => document.getElementById(id)?.contains(node)),
    ring: style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2 && contrast >= 3,
    seen: node.checkVisibility({ opacityProperty: true }) && uncovered(),
  };
}"""


@pytest.fixture(scope="module")
def finished(browser: Any, server: Server) -> str:
    """A run that has ended: started without a mouse, so that this is shown as well."""
    context = browser.new_context(viewport=WIDE)
    tab = Tab(context, server)
    tab.field("max_steps").fill("4")
    name = tab.page.get_by_placeholder("Run name")
    name.fill("by hand")
    name.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent.trim()") == "Start training"
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("[data-run]", timeout=20_000)
    (run,) = tab.ids()
    tab.wait_state(run, "finished")
    assert tab.faults == []
    context.close()
    return run


@pytest.mark.parametrize("scheme", first_only(["light", "dark"]))
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(browser: Any, server: Server, finished: str, size: Any, scheme: Any) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    tab = Tab(context, server)
    assert tab.page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    tab.wait_points(finished, 4)
    tab.page.get_by_role("button", name="More about LoRA").click()
    tab.page.get_by_role("button", name="More settings").click()
    playwright.expect(tab.page.locator("#f-seed input, #f-seed textarea")).to_be_visible()
    assert violations(tab) == []
    tab.field("optimizer.learning_rate").fill("abc")
    playwright.expect(tab.page.locator("#f-optimizer-learning_rate .tf-problem")).to_be_visible(timeout=10_000)
    tab.page.locator(f"[data-run={finished}] summary").click()
    assert violations(tab) == []
    context.close()


@pytest.mark.slow
def test_axe_tells_a_fault(browser: Any, server: Server, finished: str) -> None:
    context = browser.new_context(viewport=WIDE)
    tab = Tab(context, server)
    tab.page.evaluate("document.querySelector('#tf-ask').append(document.createElement('input'))")
    assert [violation.partition(" ")[0] for violation in violations(tab)] == ["label"]
    context.close()


def walk(tab: Tab, limit: int, patient: bool) -> list[dict[str, Any]]:
    """Where Tab goes from the top of the page, one entry a press, until it leaves the page or comes round."""
    stops: list[dict[str, Any]] = []
    for _ in range(limit):
        tab.page.keyboard.press("Tab")
        stop = tab.page.evaluate(FOCUSED, [list(PLACES), patient])
        if stop is None or (stops and stop["number"] == stops[0]["number"]):
            break
        stops.append(stop)
        if stop["list"]:  # its list opens; left in the middle of that, it stays open
            tab.page.wait_for_timeout(400)
    return stops


@pytest.mark.parametrize("size, scheme", [(WIDE, "dark"), (PHONE, "light")], ids=["wide", "phone"])
def test_tab_reaches_every_control_in_order_and_shows_where_it_is(
    browser: Any, server: Server, finished: str, size: Any, scheme: Any
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    tab = Tab(context, server)
    tab.wait_points(finished, 4)
    tab.page.get_by_role("button", name="More settings").click()
    playwright.expect(tab.page.locator("#f-seed input, #f-seed textarea")).to_be_visible()
    tab.page.get_by_role("heading", name="Tuning Fork").click()  # Tab goes on from where a person last pressed
    count = tab.page.evaluate(NUMBER_CONTROLS)
    assert count > 40
    stops = walk(tab, count + 20, size is WIDE)
    assert [stop["number"] for stop in stops] == list(range(count)), [stop["what"] for stop in stops]
    positions = [stop["place"] for stop in stops]
    assert positions == sorted(positions) and min(positions) == 0, "Tab jumps between the parts of the page"
    assert [stop["what"] for stop in stops if not stop["ring"]] == [], "focus cannot be seen"
    if size is WIDE:
        assert [stop["what"] for stop in stops if not stop["seen"]] == [], "focus is covered"
    context.close()


def test_arrow_keys_choose_within_a_group(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport=WIDE)
    tab = Tab(context, server)
    group = tab.page.get_by_role("group", name="Train for")
    for key, chosen, field in (("ArrowRight", "epochs", "num_epochs"), ("ArrowLeft", "updates", "max_steps")):
        group.get_by_role("radio", checked=True).focus()
        tab.page.keyboard.press(key)
        playwright.expect(group.get_by_label(chosen)).to_be_checked()
        playwright.expect(tab.field(field)).to_be_visible(timeout=20_000)
    assert tab.faults == []
    context.close()


def test_a_run_is_shown_hidden_and_managed_by_keyboard(browser: Any, server: Server, finished: str) -> None:
    context = browser.new_context(viewport=WIDE)
    tab = Tab(context, server)
    tab.wait_points(finished, 4)
    row = tab.page.locator(f"[data-run={finished}]")
    row.get_by_label("Show by hand").focus()
    tab.page.keyboard.press("Space")
    playwright.expect(tab.page.locator(".tf-empty")).to_be_visible()
    tab.page.keyboard.press("Space")
    playwright.expect(tab.page.locator(".tf-empty")).to_be_hidden()
    assert f"runs={finished}" in tab.page.url
    for key in ("Tab", "Enter", "Tab", "Tab"):
        tab.page.keyboard.press(key)
    assert tab.page.evaluate("document.activeElement.textContent") == "Rename"
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.type("renamed")
    tab.page.keyboard.press("Enter")
    playwright.expect(row.locator(".tf-name")).to_have_text("renamed", timeout=10_000)
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") in (
        "Actions for by hand",
        "Actions for renamed",
    )
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Escape")
    assert row.locator("details[open]").count() == 0
    assert tab.faults == []
    context.close()


def test_dark_rules_have_one_selector_each() -> None:
    """Gradio puts its container before each rule of the stylesheet; of a list it breaks every `.dark` but the first."""
    style = re.sub(r"/\*.*?\*/", "", STYLE.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = [head.strip() for head in re.findall(r"[^{}]+(?={)", style)]
    dark = [head for head in heads if ".dark" in head]
    assert len(dark) > 5
    assert [head for head in dark if "," in head] == []
