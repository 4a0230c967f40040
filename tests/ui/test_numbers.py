"""What is typed into the page is what is sent, or told at its field: nothing is clamped, dropped or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    broken: list[str] = []
    tab.page.on("response", lambda answer: broken.append(answer.url) if answer.status >= 500 else None)
    yield tab
    assert tab.faults == []
    assert broken == [], "the server failed instead of telling"
    context.close()


def settings_sent(tab: Tab, run: str) -> dict[str, Any]:
    return tab.page.evaluate("(run) => fetch(`fork/runs/${run}/settings`).then((it) => it.json())", run)


def effective_batch(tab: Tab) -> Any:
    return tab.page.locator(".tf-tile strong").first


def paste(tab: Tab, path: str, text: str) -> None:
    """Puts text into a field as a person pastes it: the field itself decides what becomes of it."""
    field = tab.field(path)
    field.click()
    field.press("Control+a")
    tab.page.keyboard.insert_text(text)


@pytest.mark.parametrize(
    ("typed", "batch"), [("100", "100 × 4 = 400"), (" 1e3", "1000 × 4 = 4000"), ("4096", "4096 × 4 = 16384")]
)
def test_a_number_goes_to_the_plan_as_it_was_typed(tab: Tab, typed: str, batch: str) -> None:
    paste(tab, "micro_batch_size", typed)
    playwright.expect(effective_batch(tab)).to_have_text(batch, timeout=20_000)
    tab.field("micro_batch_size").press("Tab")
    tab.page.wait_for_timeout(300)
    assert tab.field("micro_batch_size").input_value() == typed, "leaving the field changes nothing in it"
    assert effective_batch(tab).inner_text() == batch


def test_what_is_no_number_is_shown_at_its_field_and_starts_nothing(tab: Tab) -> None:
    wrong = {
        "micro_batch_size": {
            "8,5": "8,5",
            "8\n16": r"8\n16",
            "\uff18": "\uff18",
            "9" * 400: "a number of 400 digits",
            "": "''",
        },
        "gradient_accumulation_steps": {"0x10": "0x10", "-4": "-4", "4097": "4097"},
    }
    before = tab.ids()
    for path, cases in wrong.items():
        for typed, message in cases.items():
            paste(tab, path, typed) if typed else tab.field(path).fill("")
            problem = tab.page.locator(f"#f-{path} .tf-problem")
            playwright.expect(problem).to_contain_text(message, timeout=20_000)
            tab.field(path).press("Tab")
            assert tab.field(path).input_value() == typed
        tab.page.get_by_role("button", name="Start training").click()
        playwright.expect(tab.field(path)).to_be_focused(timeout=20_000)
        assert tab.field(path).get_attribute("aria-invalid") == "true"
        tab.field(path).fill("4")
        playwright.expect(problem).to_have_count(0, timeout=20_000)
    assert tab.ids() == before


def test_the_rows_stay_in_sight_while_a_number_beside_them_cannot_be_read(tab: Tab) -> None:
    section = tab.page.locator("#tf-your-data")
    section.locator("summary").first.click()
    row = section.locator(".tf-data-row").first
    playwright.expect(row).to_be_visible(timeout=20_000)
    playwright.expect(section.locator(".tf-facts")).to_contain_text("updates an epoch")
    tab.field("micro_batch_size").fill("8,5")
    playwright.expect(section.locator(".tf-facts")).not_to_contain_text("updates an epoch", timeout=20_000)
    assert row.is_visible()
    tab.page.get_by_role("button", name="More settings").click()
    tab.field("data.max_seq_length").fill("0x10")
    playwright.expect(section.get_by_role("alert")).to_contain_text("0x10", timeout=20_000)
    assert row.is_visible()


@pytest.mark.slow
def test_texts_and_lists_reach_the_run_as_they_were_typed_and_come_back_so(tab: Tab) -> None:
    tab.page.get_by_role("button", name="More settings").click()
    paste(tab, "data.separator", " ")
    paste(tab, "data.system_prompt", "Be kind. ")
    paste(tab, "sample.prompts", "The film was dull. \n\nOverall:")
    tab.page.locator("#f-data-packing").get_by_text("no", exact=True).click()
    tab.field("eval.every").fill("")
    for path, message in (
        ("data.separator", "blanks at its ends"),
        ("data.system_prompt", "blanks at its ends"),
        ("eval.every", "Empty takes"),
    ):
        playwright.expect(tab.page.locator(f"#f-{path.replace('.', '-')} .tf-hint")).to_contain_text(
            message, timeout=20_000
        )
    playwright.expect(tab.page.locator("#f-sample-prompts .tf-notice")).to_contain_text("1 empty line is left out")
    run = tab.press_start(max_steps="1", micro_batch_size="2", run_name="as typed")
    sent = settings_sent(tab, run)
    assert sent["data"]["separator"] == " " and sent["data"]["system_prompt"] == "Be kind. "
    assert sent["data"]["packing"] is False and sent["eval"]["every"] is None
    assert sent["sample"]["prompts"] == ["The film was dull. ", "Overall:"]
    tab.wait_state(run, "finished")
    shown = {"data.separator": '" "', "data.system_prompt": '"Be kind. "', "eval.every": ""}
    shown |= {"sample.prompts": '"The film was dull. "\nOverall:', "micro_batch_size": "2"}
    tab.field("data.separator").fill("")
    tab.field("micro_batch_size").fill("3")
    tab.page.locator(f"[data-run={run}] summary").click()
    tab.page.get_by_role("button", name="Use these settings again").click()
    for path, text in shown.items():
        playwright.expect(tab.field(path)).to_have_value(text, timeout=20_000)
    tab.page.wait_for_timeout(500)
    tab.page.reload()
    tab.page.wait_for_selector(".tf-tile", timeout=SLOW)
    playwright.expect(effective_batch(tab)).to_have_text("2 × 4 = 8", timeout=20_000)
    tab.page.get_by_role("button", name="More settings").click()
    for path, text in shown.items():
        playwright.expect(tab.field(path)).to_have_value(text, timeout=20_000)
    assert tab.page.locator("#f-data-packing").get_by_label("no", exact=True).is_checked()
    again = tab.press_start(run_name="as typed, again")
    assert settings_sent(tab, again) == sent, "settings, form, settings: nothing is lost on the way"


def test_a_long_run_name_is_shown_at_its_field_before_start(tab: Tab) -> None:
    name = tab.page.get_by_placeholder("Run name")
    name.fill("n" * 120)
    problem = tab.page.locator("#f-run_name .tf-problem")
    playwright.expect(problem).to_contain_text("120 characters", timeout=20_000)
    assert len(name.input_value()) == 120, "nothing is cut off"
    name.fill("short")
    playwright.expect(problem).to_have_count(0, timeout=20_000)


def test_a_question_sends_its_numbers_as_they_were_typed(tab: Tab) -> None:
    run = tab.press_start(max_steps="1", run_name="to be asked")
    tab.wait_state(run, "finished")
    panel = tab.page.get_by_role("region", name="Ask the model")
    panel.get_by_label("run").select_option(run)
    for label, typed, message in (
        ("temperature", "0,5", "Temperature: needs a number from 0 to 5"),
        ("seed", "1x", "Seed: needs a whole number from 0"),
        ("new tokens", "", "New tokens: needs a whole number from 1 to 512"),
    ):
        field = panel.get_by_label(label)
        before = field.input_value()
        field.fill(typed)
        panel.get_by_role("button", name="Ask", exact=True).click()
        playwright.expect(panel.get_by_role("alert")).to_contain_text(message, timeout=20_000)
        assert field.input_value() == typed and field.get_attribute("aria-invalid") == "true"
        field.fill(before)
    panel.get_by_label("temperature").fill("0.75")
    panel.get_by_role("button", name="Ask", exact=True).click()
    tab.page.wait_for_selector(".tf-answer-row:not([aria-busy])", timeout=SLOW)
