"""Each kind of run from the page, by choosing and clicking alone; and a plan that will not fit, in plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, pick, playwright
from support.tiny_models import big_model, encoder_folder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    yield tab
    text = tab.page.locator("body").inner_text()
    assert "Tuning Fork" in text
    assert re.findall(r"Traceback|File \".*\", line|\w+Error\b|\bNaN\b|undefined|\[object", text) == []
    assert tab.faults == []
    context.close()


def choose(tab: Tab, group: str, option: str) -> None:
    tab.page.get_by_role("group", name=group, exact=True).get_by_text(option, exact=True).click()


def tiles(tab: Tab) -> Any:
    return tab.page.locator(".tf-tiles")


def drawn(tab: Tab, run: str, kind: str) -> list[float]:
    """The values that the chart draws of this run."""
    return tab.page.evaluate(
        "(uid) => (document.querySelector('.tf-plot').data ?? []).find((one) => one.uid === uid)?.y ?? []",
        f"{run}-{kind}",
    )


def ask(tab: Tab, run: str, prompt: str) -> list[str]:
    """What the base model and the trained one answer."""
    panel = tab.page.get_by_role("region", name="Ask the model")
    panel.get_by_label("run").select_option(run)
    panel.get_by_label("prompt").fill(prompt)
    panel.get_by_role("button", name="Ask", exact=True).click()
    tab.page.wait_for_selector(".tf-answer-row:not([aria-busy])", timeout=SLOW)
    return tab.page.locator(".tf-answer p:not(.tf-small)").all_inner_texts()


def test_a_classification_run_learns_and_names_the_classes(tab: Tab) -> None:
    choose(tab, "Task", "choose a class")
    pick(tab, "data.source", "Reviews with a verdict")
    before = tab.page.evaluate("document.querySelectorAll('[data-run]').length")
    playwright.expect(tab.page.get_by_role("group", name="Task").get_by_label("choose a class")).to_be_checked()
    run = tab.press_start(max_steps="20")
    assert len(tab.ids()) == before + 1
    tab.wait_state(run, "finished")
    tab.wait_points(run, 20)
    evals = drawn(tab, run, "eval")
    assert len(evals) == 3 and evals[-1] < evals[0], "the evaluation loss did not fall"
    settings = tab.page.evaluate("(run) => fetch(`fork/runs/${run}/settings`).then((it) => it.json())", run)
    assert settings["task"] == "sequence_classification"
    answers = ask(tab, run, "The film was wonderful and I loved it.")
    assert len(answers) == 2
    assert "no classes" in answers[0] and re.search("positive|negative", answers[1]), answers
    texts = tab.page.locator(".tf-answer .tf-small").all_inner_texts()
    (chances,) = [text for text in texts if "%" in text]
    assert sum(float(part) for part in re.findall(r"([\d.]+) %", chances)) == pytest.approx(100, abs=0.3)


@pytest.mark.slow
def test_a_full_run_learns(tab: Tab) -> None:
    choose(tab, "Method", "Full")
    playwright.expect(tiles(tab)).to_contain_text("(100\u00a0%)", timeout=10_000)
    run = tab.press_start(max_steps="12", gradient_accumulation_steps="2")
    tab.wait_state(run, "finished")
    tab.wait_points(run, 12)
    losses = drawn(tab, run, "smooth")
    assert losses[-1] < losses[0], "the loss did not fall"
    row = tab.page.locator(f"[data-run={run}]")
    playwright.expect(row).to_contain_text("12/12")
    playwright.expect(row).to_contain_text("Full")
    answers = ask(tab, run, "The film was dull.\nOverall:")
    assert len(answers) == 2 and "(an empty answer)" not in answers, answers


@pytest.mark.slow
def test_a_run_by_epochs(tab: Tab) -> None:
    choose(tab, "Train for", "epochs")
    playwright.expect(tab.field("num_epochs")).to_have_value("1", timeout=10_000)
    tab.field("num_epochs").fill("")
    problem = tab.page.locator("#f-num_epochs .tf-problem")
    playwright.expect(problem).to_contain_text("how long to train", timeout=10_000)
    tab.field("num_epochs").fill("0.1")
    playwright.expect(problem).to_have_count(0, timeout=10_000)
    playwright.expect(tab.page.locator(".tf-tile").last).to_have_text(re.compile("4 ?updates"), timeout=10_000)
    run = tab.press_start()
    tab.wait_state(run, "finished")
    tab.wait_points(run, 4)
    assert len(tab.points(run)) == 4


def test_a_problem_in_a_closed_part_of_the_form_is_shown_all_the_same(tab: Tab) -> None:
    more = tab.page.get_by_role("button", name="More settings")
    more.click()
    tab.field("seed").fill("-1")
    at_field, on_top = tab.page.locator("#f-seed .tf-problem"), tab.page.locator(".tf-general .tf-problem")
    playwright.expect(at_field).to_contain_text("Seed: -1", timeout=10_000)
    for _ in range(2):
        playwright.expect(on_top).to_contain_text("Seed: -1", timeout=10_000)
        more.click()
    tab.field("seed").fill("1")
    playwright.expect(on_top).to_have_count(0, timeout=10_000)


def test_a_recipe_has_fields_of_its_own_that_tell_their_faults(tab: Tab) -> None:
    pick(tab, "data.source", "Questions about known people")
    tab.page.get_by_role("button", name="More settings").click()
    threshold = tab.page.locator("#f-recipe-r_tuning-threshold")
    playwright.expect(threshold).to_be_hidden()
    choose(tab, "Recipe: a way to prepare the rows", "R-Tuning")
    playwright.expect(threshold).to_be_visible(timeout=10_000)
    tab.field("recipe.r_tuning.threshold").fill("2")
    playwright.expect(threshold.locator(".tf-problem")).to_contain_text("0 to 1", timeout=10_000)
    tab.field("recipe.r_tuning.threshold").fill("0.5")
    playwright.expect(threshold.locator(".tf-problem")).to_have_count(0, timeout=10_000)
    tab.field("data.train_rows").fill("16")
    tab.field("data.eval_rows").fill("8")
    run = tab.press_start(max_steps="2", gradient_accumulation_steps="1")
    tab.wait_state(run, "finished")
    settings = tab.page.evaluate("(run) => fetch(`fork/runs/${run}/settings`).then((it) => it.json())", run)
    assert settings["recipe"] == {"name": "r_tuning", "form": "refusal", "threshold": 0.5}


def test_a_plan_that_will_not_fit_is_reported_in_words(tab: Tab, tmp_path: Path) -> None:
    tab.field("model").fill(str(big_model(tmp_path / "a big model")))
    tab.field("model").press("Enter")
    choose(tab, "Method", "Full")
    pick(tab, "would_fit_on", "Laptop, 8 GB RAM")
    memory = tab.page.get_by_role("region", name="Estimated memory")
    verdict = memory.locator(".tf-verdict")
    playwright.expect(verdict).to_have_text(re.compile(r"Will not fit: [\d.]+ GiB of 8 GiB"), timeout=30_000)
    text = memory.inner_text()
    assert "Laptop, 8 GB RAM" in text
    assert re.search(r"To take less: .*LoRA instead of Full saves [\d.]+ GiB.*under More about memory", text), text
    line, words = memory.locator(".tf-limit").bounding_box(), memory.locator(".tf-limit-text span").bounding_box()
    assert words["x"] <= line["x"] <= words["x"] + words["width"], "the limit is named where it is"
    assert memory.locator(".tf-limit-text").inner_text() == "limit of Laptop, 8 GB RAM: 8 GiB"
    end = re.fullmatch(r"0\s+([\d.]+) GiB", memory.locator(".tf-ends").inner_text())
    assert end and float(end[1]) > 8, "the axis tells its end"
    choose(tab, "Method", "LoRA")  # what the page says helps
    playwright.expect(verdict).to_have_text(re.compile(r"(Fits|May not fit): [\d.]+ GiB of 8 GiB"), timeout=30_000)
    color = "(node) => getComputedStyle(node).backgroundColor"
    bright = verdict.evaluate(color)
    tab.field("optimizer.learning_rate").fill("abc")
    playwright.expect(tab.page.locator(".tf-stale")).to_have_count(1, timeout=10_000)
    assert verdict.evaluate(color) != bright, "a verdict of other settings has no colour"


@pytest.mark.slow
def test_a_real_encoder_learns_topics_from_start_to_finish(tab: Tab, tmp_path: Path) -> None:
    settings = {
        "model": str(encoder_folder()),
        "task": "sequence_classification",
        "data": {"source": "topics", "max_seq_length": 32, "eval_rows": 60},
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 20,
        "eval": {"every": None},
    }
    file = tmp_path / "topics.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    tab.page.get_by_label("settings file").set_input_files(file)
    playwright.expect(tab.field("max_steps")).to_have_value("20", timeout=20_000)
    run = tab.press_start()
    tab.wait_state(run, "finished")
    panel = tab.page.get_by_role("region", name="Evaluation rows")
    panel.get_by_label("run").select_option(run)
    cells = panel.locator(".tf-confusion td")
    playwright.expect(cells).to_have_count(36, timeout=20_000)
    counts = [int(text) for text in cells.all_inner_texts()]
    right = sum(counts[i * 7] for i in range(6))
    assert sum(counts) == 60 and right > 36, "six in ten, where one in six is chance"
    with tab.page.expect_download() as download:
        tab.page.locator(f"[data-run={run}] summary").click()
        tab.page.locator(f"[data-run={run}] .tf-menu").get_by_text("Download zip", exact=True).click()
    assert download.value.suggested_filename == f"{run}.zip"
