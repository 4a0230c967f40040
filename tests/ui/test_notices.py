"""What is told before Start, where a person looks: over the button, at the fields, at the rows, on the run's row."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, open_server, playwright, violations
from support.stored_runs import STORED, as_it_was

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 420, "height": 900}
PROMPTS = "The film was dull.\n\n\nThe meal was warm."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Over a store that version 1 has written: its runs carry what was told when they were read."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(STORED / "version_1", home, dirs_exist_ok=True)
    for file in home.rglob("*.json"):
        file.write_text(as_it_was(file.read_text("utf-8"), home), "utf-8")
    db = sqlite3.connect(home / "runs.sqlite")
    db.executescript(as_it_was((home / "runs.sql").read_text("utf-8"), home))
    db.close()
    with open_server(home) as server:
        yield server


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport=WIDE)
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []
    context.close()


def before_start(tab: Tab) -> Any:
    return tab.page.get_by_role("region", name="Before you start")


def type_prompts_with_empty_lines(tab: Tab) -> None:
    tab.page.get_by_role("button", name="More settings").click()
    tab.field("sample.prompts").fill(PROMPTS)


def choose_file(tab: Tab, file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    source = tab.field("data.source")
    source.fill(str(file))
    source.press("Enter")


def test_a_notice_is_shown_over_the_button_and_at_the_field(tab: Tab) -> None:
    expect = playwright.expect
    expect(before_start(tab)).to_have_count(0)
    start = tab.page.locator("#tf-start").bounding_box()
    type_prompts_with_empty_lines(tab)
    notices = before_start(tab)
    expect(notices.get_by_role("listitem").filter(has_text="2 empty lines are left out")).to_be_visible(timeout=20_000)
    expect(notices.get_by_role("heading")).to_contain_text(f"{notices.locator('li').count()} notice")
    expect(notices.get_by_role("listitem").filter(has_text="Prompts to try")).to_have_count(1)
    note = tab.page.locator("#f-sample-prompts .tf-notice")
    expect(note).to_contain_text("Note: 2 empty lines")
    described = tab.field("sample.prompts").get_attribute("aria-describedby")
    assert note.get_attribute("id") in described.split(), "a screen reader hears it with the field"
    assert tab.page.locator("[aria-live=polite]").filter(has=notices).count() == 1
    assert tab.page.locator("#tf-start").bounding_box() == start, "the button stays where it is"
    tab.field("sample.prompts").fill("The film was dull.")
    expect(note).to_have_count(0, timeout=20_000)
    expect(notices).to_have_count(0, timeout=20_000)


def test_the_list_stands_still_while_a_number_is_typed(tab: Tab) -> None:
    type_prompts_with_empty_lines(tab)
    playwright.expect(before_start(tab).locator("li").first).to_be_visible(timeout=20_000)
    note = tab.page.locator("#f-sample-prompts .tf-notice")
    playwright.expect(note).to_be_visible()
    tab.page.evaluate(
        """() => {
          const list = window.gone = [];
          const gone = (all) => all.forEach((one) => one.removedNodes.forEach((it) => list.push(it.textContent)));
          const watch = (node) => new MutationObserver(gone).observe(node, { childList: true, subtree: true });
          watch(document.querySelector('#tf-before-start'));
          watch(document.querySelector('#f-sample-prompts'));
        }"""
    )
    rate, problem = tab.field("optimizer.learning_rate"), tab.page.locator("#f-optimizer-learning_rate .tf-problem")
    rate.fill("")
    for letter, wrong in (("0", True), (".", True), ("0", True), ("2", False)):
        rate.press_sequentially(letter)
        playwright.expect(problem).to_have_count(int(wrong), timeout=20_000)
        assert note.is_visible() and before_start(tab).locator("li").first.is_visible()
    assert tab.page.evaluate("window.gone") == []


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_axe_finds_nothing_where_notices_are_shown(browser: Any, server: Server, size: Any, scheme: Any) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    tab = Tab(context, server)
    type_prompts_with_empty_lines(tab)
    playwright.expect(before_start(tab)).to_be_visible(timeout=20_000)
    tab.page.get_by_role("button", name="notice: notices before Start").first.click()
    assert violations(tab) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert tab.faults == []
    context.close()


def test_the_row_of_a_run_shows_the_notices_before_its_start(tab: Tab) -> None:
    row = tab.page.locator("[data-run=r0001]")
    opener = row.get_by_role("button", name="notices before Start")
    playwright.expect(opener).to_have_text("1 notice", timeout=20_000)
    heading = tab.page.get_by_role("heading", name="Notices before Start")
    playwright.expect(heading).to_have_count(0)
    opener.focus()
    tab.page.keyboard.press("Enter")
    playwright.expect(heading).to_be_visible()
    listed = tab.page.locator(f"#{opener.get_attribute('aria-controls')} li")
    playwright.expect(listed).to_contain_text("These settings are of version 1")
    assert opener.get_attribute("aria-expanded") == "true"
    tab.page.keyboard.press("Enter")
    playwright.expect(heading).to_have_count(0)


def test_notes_of_other_data_do_not_stay_where_these_are_refused(tab: Tab, tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"text": f"row {n % 3}"}) for n in range(30))
    (tmp_path / "doubled.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "one_class.csv").write_text("text,label\n" + "".join(f"row {n},same\n" for n in range(30)), "utf-8")
    source, region = tab.field("data.source"), tab.page.get_by_role("region", name="Before you start")
    field = tab.page.locator("#f-data-source")
    source.fill(str(tmp_path / "doubled.jsonl"))
    source.press("Enter")
    playwright.expect(region).to_contain_text("training rows repeat earlier ones", timeout=20_000)
    playwright.expect(field.locator(".tf-notice").first).to_be_visible()
    source.fill(str(tmp_path / "one_class.csv"))
    source.press("Enter")
    playwright.expect(region.locator(".tf-problem")).to_contain_text("one value only, 'same'", timeout=20_000)
    playwright.expect(region).not_to_contain_text("repeat earlier ones")
    playwright.expect(field.locator(".tf-notice")).to_have_count(0)
    tab.field("max_steps").fill("-1")
    source.fill(str(tmp_path / "doubled.jsonl"))
    source.press("Enter")
    playwright.expect(region).to_contain_text("training rows repeat earlier ones", timeout=20_000)
    playwright.expect(region.locator(".tf-problem")).to_have_count(0)
    playwright.expect(region.locator(".tf-before-count")).to_contain_text("notice")
    tab.field("max_steps").fill("4")
    playwright.expect(region).to_contain_text("training rows repeat earlier ones", timeout=20_000)
    playwright.expect(region.locator(".tf-problem")).to_have_count(0)


def test_a_settings_file_of_version_1_says_what_was_written_out(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps({"version": 1, "max_steps": 7, "precision": "bf16"}), encoding="utf-8")
    tab.page.get_by_label("settings file").set_input_files(file)
    playwright.expect(tab.field("max_steps")).to_have_value("7", timeout=20_000)
    toast = tab.page.locator(".tf-toast").filter(has_text="These settings are of version 1")
    playwright.expect(toast).to_contain_text("precision autocast_bf16, which was bf16", timeout=20_000)
    tab.page.get_by_role("button", name="More settings").click()
    playwright.expect(tab.page.locator("#f-precision").get_by_label("autocast")).to_be_checked()
    tab.page.wait_for_timeout(7_000)
    toast.get_by_role("button", name="Close").click()
    playwright.expect(toast).to_have_count(0)


def test_rows_of_which_more_than_one_reading_is_possible_show_their_columns_to_choose(tab: Tab, tmp_path: Path) -> None:
    expect, section = playwright.expect, tab.page.locator("#tf-your-data")
    choose_file(
        tab, tmp_path / "two.jsonl", [{"left": f"the mill of {n}", "right": f"a baker of {n}"} for n in range(9)]
    )
    expect(section.get_by_role("heading", name="Which column is what")).to_be_visible(timeout=SLOW)
    expect(section.locator("summary").first).to_contain_text("needs a choice")
    expect(section.get_by_role("row", name="left")).to_contain_text("the mill of 0")
    left = section.get_by_label("left is")
    offered = left.locator("option").evaluate_all("(all) => all.map((one) => one.value)")
    assert {"", "text", "label", "prompt", "completion"} <= set(offered)
    left.select_option("prompt")  # and the next at once: the answer to this one is not waited for
    section.get_by_label("right is").select_option("completion")
    expect(section.locator("summary").first).to_contain_text("prompt + completion", timeout=20_000)
    tab.page.get_by_role("button", name="More settings").click()
    columns = tab.field("data.columns")
    expect(columns).to_have_value('{"prompt": "left", "completion": "right"}', timeout=20_000)
    section.get_by_label("answer column").select_option("left")
    expect(columns).to_have_value('{"prompt": "left", "completion": "left"}', timeout=20_000)
    other = section.locator(".tf-other-columns")
    expect(other.get_by_role("button")).to_have_text("1 column not used: right", timeout=20_000)
    other.get_by_role("button").press("Enter")
    other.get_by_label("right is").select_option("completion")
    expect(columns).to_have_value('{"prompt": "left", "completion": "right"}', timeout=20_000)


def test_notices_of_the_rows_stand_in_their_section_too(tab: Tab, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Is {n} odd?", "completion": " yes" if n % 2 else " no", "source_url": f"u{n}"} for n in range(20)
    ]
    choose_file(tab, tmp_path / "odd.jsonl", rows)
    section = tab.page.locator("#tf-your-data")
    playwright.expect(section.locator("summary").first).to_contain_text("18 + 2 rows", timeout=SLOW)
    playwright.expect(section.locator("summary").first).to_contain_text("notice")
    section.locator("summary").first.click()
    messages = section.get_by_role("region", name="Notices on these rows").locator("li").all_inner_texts()
    assert any("source_url" in message for message in messages), messages
    over = before_start(tab)
    playwright.expect(over).to_contain_text("source_url", timeout=20_000)


def test_rows_that_are_plain_text_have_no_truth_to_miss(tab: Tab) -> None:
    source = tab.field("data.source")
    source.click()
    tab.page.get_by_role("option", name="pirate").click()
    playwright.expect(tab.page.locator("#tf-your-data summary").first).to_contain_text("text", timeout=20_000)
    run = tab.press_start(max_steps="1", run_name="plain text")
    tab.wait_state(run, "finished")
    panel = tab.page.get_by_role("region", name="Evaluation rows")
    panel.get_by_label("run").select_option(run)
    playwright.expect(panel).to_contain_text("learned whole", timeout=20_000)
    heads = panel.locator(".tf-predictions th").all_inner_texts()
    assert "truth" not in heads and "text" in heads
    assert "✗" not in panel.inner_text() and "rows kept here are right" not in panel.inner_text()
    rows = tab.page.evaluate("(run) => fetch(`fork/runs/${run}/predictions`).then((it) => it.json())", run)["rows"]
    assert rows and all("truth" not in row and row["right"] is None for row in rows)
