"""A file of one's own in a real browser: from the upload over the preview to a run that learns from it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, playwright

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


def meals(file: Path) -> Path:
    """A CSV with quoted line ends, emoji, and one row too short."""
    with open(file, "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["dish", "review", "stars"])
        for i in range(60):
            taste = "great \U0001f600,\nreally" if i % 2 else "cold and late"
            table.writerow([f"soup {i}", f"The soup was {taste}", 5 if i % 2 else 1])
        out.write("only this\r\n")
    return file


def test_from_upload_over_preview_to_a_run(browser: Any, server: Server, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    page, expect = tab.page, playwright.expect
    section = page.locator("#tf-your-data")
    page.locator("#f-data-source input[type=file]").set_input_files(str(meals(tmp_path / "meals.csv")))
    expect(section.locator("summary")).to_contain_text("54 + 6 rows", timeout=SLOW)
    expect(section.locator("summary")).to_contain_text("text + label")
    expect(tab.field("data.source")).to_have_value("meals.csv (uploaded)", timeout=SLOW)
    page.wait_for_timeout(500)
    page.reload()
    expect(tab.field("data.source")).to_have_value("meals.csv (uploaded)", timeout=SLOW)
    expect(section.locator("summary")).to_contain_text("54 + 6 rows", timeout=SLOW)  # a fresh page shows others first
    expect(section.locator("summary")).to_contain_text("text + label", timeout=SLOW)
    assert section.get_by_label("label column").input_value() == "stars"

    bad = section.get_by_role("region", name="Bad rows")
    expect(bad).to_contain_text("has 1 cell where the header has 3")
    before = tab.ids()
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("#f-data-source .tf-problem").first).to_contain_text("1 cell", timeout=SLOW)
    assert tab.ids() == before, "Start refuses bad rows until they are left out"
    bad.get_by_role("button", name="Leave bad rows out").press("Enter")
    expect(bad).to_contain_text("will be left out", timeout=SLOW)

    row = section.locator(".tf-data-row").nth(1)
    expect(row).to_contain_text("great \U0001f600,")
    trained = "".join(row.locator(".tf-token[data-state=trained]").all_inner_texts())
    first = row.locator(".tf-token").first
    assert first.evaluate("(one) => getComputedStyle(one).display") == "inline", "tokens run on like text"
    assert trained.replace("\u00a0", " ").strip() == "5<|endoftext|>"
    section.get_by_role("button", name="{dish}").click()
    expect(section.locator(".tf-template")).to_have_text("{dish}", timeout=SLOW)
    section.get_by_role("button", name="{review}").click()
    expect(section.locator(".tf-template")).to_have_text("{dish} {review}", timeout=SLOW)
    expect(row.locator(".tf-tokens")).to_contain_text("soup 1", timeout=SLOW)

    section.get_by_label("recognised as", exact=True).select_option("prompt + completion")
    expect(section.locator("summary")).to_contain_text("prompt + completion", timeout=SLOW)
    section.get_by_role("button", name="Recognise it again").click()
    expect(section.locator("summary")).to_contain_text("text + label", timeout=SLOW)
    expect(section.locator("svg.tf-lengths")).to_be_visible()

    run = tab.press_start(max_steps="3")
    tab.wait_state(run, "finished")
    tab.wait_points(run, 3)
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert tab.faults == []
    context.close()


def test_a_file_that_is_not_taken_is_one_sentence_and_the_old_choice_stays(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    tab = Tab(browser.new_context(), server)
    page, expect = tab.page, playwright.expect
    field, upload = page.locator("#f-data-source"), page.locator("#f-data-source input[type=file]")
    (tmp_path / "old.jsonl").write_text('{"text": "a"}\nnot json\n')
    (tmp_path / "empty.csv").touch()
    upload.set_input_files(str(tmp_path / "old.jsonl"))
    expect(field.locator(".tf-problem")).to_contain_text("line 2 is not JSON", timeout=SLOW)
    before = tab.field("data.source").input_value()
    upload.set_input_files(str(tmp_path / "empty.csv"))
    seen = field.locator(".tf-problem:visible")
    expect(seen).to_have_text(["empty.csv was not taken: it is empty; old.jsonl stays chosen."])
    assert tab.field("data.source").input_value() == before
    page.get_by_role("button", name="Start training").click()
    expect(seen).to_have_count(1, timeout=SLOW)
    expect(seen).to_contain_text("line 2 is not JSON", timeout=SLOW)
    page.route("**/fork/data/upload*", lambda route: route.abort())
    (tmp_path / "late.csv").write_text("text\na\n")
    upload.set_input_files(str(tmp_path / "late.csv"))
    expect(seen).to_have_text(["late.csv was not taken: the upload broke off; old.jsonl stays chosen."])


def test_a_large_labelled_file_shows_its_first_rows_at_once_and_its_counts_when_all_are_read(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    rows, file = 2_400_000, tmp_path / "many.csv"
    lines = b"the soup was good,fine\nthe soup was late and cold,poor\nno soup at all,poor\n" * (rows // 3)
    file.write_bytes(b"text,label\n" + lines)
    tab = Tab(browser.new_context(), server)
    expect, section = playwright.expect, tab.page.locator("#tf-your-data")
    source = tab.field("data.source")
    source.fill(str(file))
    source.press("Enter")
    expect(section.locator("summary")).to_contain_text("of its head", timeout=SLOW)
    section.locator("summary").click()
    expect(section.locator(".tf-reading")).to_contain_text("many.csv is being read", timeout=SLOW)
    expect(section.locator(".tf-data-row").first).to_contain_text("the soup was good")
    expect(tab.page.locator("#f-data-source .tf-hint")).to_contain_text("the numbers follow", timeout=SLOW)
    expect(section.locator("summary")).to_contain_text("2,160,000 + 240,000 rows", timeout=SLOW)
    expect(section.locator("summary")).not_to_contain_text("of its head")
    expect(section.locator(".tf-facts")).to_contain_text("updates an epoch")
    expect(section.get_by_role("row", name="poor")).to_contain_text("1,440,000")
    expect(tab.page.locator("#f-data-source .tf-hint")).to_have_count(0, timeout=SLOW)
    expect(tab.page.locator("#tf-preview .tf-tiles")).to_contain_text("updates", timeout=SLOW)
    assert tab.faults == []
