"""What a run left, on the page: predictions, samples, downloads, a settings file, the next run from the last one."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.browser import SLOW, Server, Tab, playwright

pytestmark = pytest.mark.slow
SETTINGS = {
    "max_steps": 12,
    "gradient_accumulation_steps": 2,
    "data": {"eval_rows": 24, "train_rows": 120},
    "eval": {"every": 6, "metrics": ["perplexity", "exact_match"], "max_new_tokens": 6},
    "sample": {"prompts": ["The film was dull.\nOverall:"], "every": 6},
    "seed": 3,
}


@pytest.fixture(scope="module")
def tab(server: Server, browser: Any) -> Any:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = Tab(context, server)
    yield tab
    assert tab.faults == []
    context.close()


@pytest.fixture(scope="module")
def run(tab: Tab, tmp_path_factory: Any) -> str:
    """A finished run, started from a settings file that was opened on the page."""
    file = tmp_path_factory.mktemp("files") / "my settings.json"
    file.write_text("\ufeff" + json.dumps(SETTINGS), encoding="utf-8")
    tab.page.get_by_label("settings file").set_input_files(file)
    playwright.expect(tab.field("max_steps")).to_have_value("12", timeout=20_000)
    run_id = tab.press_start(run_name="first")
    tab.wait_state(run_id, "finished")
    return run_id


def fetched(tab: Tab, path: str) -> Any:
    return tab.page.evaluate("(path) => fetch(path).then((it) => it.json())", path)


def menu(tab: Tab, run: str, entry: str) -> None:
    tab.page.locator(f"[data-run={run}] summary").click()
    tab.page.locator(f"[data-run={run}] .tf-menu").get_by_text(entry, exact=True).click()


def saved(tab: Tab, run: str, entry: str, folder: Path) -> Path:
    with tab.page.expect_download(timeout=SLOW) as download:
        menu(tab, run, entry)
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def test_a_settings_file_is_what_the_run_has(tab: Tab, run: str) -> None:
    settings = fetched(tab, f"fork/runs/{run}/settings")
    assert settings["seed"] == 3 and settings["method"]["name"] == "lora", "what the file leaves out has its default"
    assert settings["eval"]["metrics"] == ["perplexity", "exact_match"]
    assert settings["sample"]["prompts"] == SETTINGS["sample"]["prompts"]


def test_a_wrong_settings_file_is_reported_and_changes_nothing(tab: Tab, run: str, tmp_path: Path) -> None:
    for text, word in (
        ("{nonsense", "not JSON"),
        ('{"micro_batch_size": 0}', "Micro-batch size: 0 is outside"),
    ):
        file = tmp_path / "wrong.json"
        file.write_text(text, encoding="utf-8")
        tab.page.get_by_label("settings file").set_input_files(file)
        playwright.expect(tab.page.locator(".tf-toast").filter(has_text=word)).to_be_visible(timeout=20_000)
    assert tab.field("max_steps").input_value() == "12"


def test_its_panels_show_a_new_run_until_another_is_chosen(tab: Tab, run: str, browser: Any, server: Server) -> None:
    """Runs of before are there when a page starts its own; a run of another browser moves nothing here."""
    panels = [tab.page.get_by_role("region", name=name) for name in ("Evaluation rows", "Ask the model")]
    for panel in panels:
        playwright.expect(panel.get_by_label("run")).to_have_value(run)
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    other = Tab(context, server)
    assert run in other.ids(), "a run of before"
    of_other = other.press_start(max_steps="2", run_name="of another browser")
    for page in (other, tab):
        page.wait_state(of_other, "finished")
    for name in ("Evaluation rows", "Ask the model"):
        playwright.expect(other.page.get_by_role("region", name=name).get_by_label("run")).to_have_value(of_other)
    other.page.get_by_role("region", name="Evaluation rows").get_by_label("run").select_option(run)
    later = other.press_start(max_steps="2", run_name="a later one")
    other.wait_state(later, "finished")
    playwright.expect(other.page.get_by_role("region", name="Ask the model").get_by_label("run")).to_have_value(later)
    chosen = other.page.get_by_role("region", name="Evaluation rows").get_by_label("run")
    playwright.expect(chosen.locator(f"option[value={later}]")).to_have_count(1)
    playwright.expect(chosen).to_have_value(run)
    for panel in panels:
        playwright.expect(panel.get_by_label("run")).to_have_value(run)
    assert other.faults == []
    context.close()


def test_evaluation_rows_can_be_sorted_and_gone_back_to(tab: Tab, run: str) -> None:
    panel = tab.page.get_by_role("region", name="Evaluation rows")
    rows = panel.locator("tbody tr")
    playwright.expect(rows).to_have_count(24, timeout=20_000)
    playwright.expect(panel).to_contain_text("exact match")
    losses = [float(text) for text in panel.locator("tbody tr td:last-child").all_inner_texts()]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
    panel.get_by_label("order").select_option(label="as in the data")
    indices = [int(text) for text in panel.locator("tbody tr td:first-child").all_inner_texts()]
    assert indices == list(range(24))
    slider = panel.get_by_label("evaluation at step")
    slider.fill("0")
    playwright.expect(panel.locator("output")).to_have_text("0")
    first = fetched(tab, f"fork/runs/{run}/predictions?step=0")
    playwright.expect(panel).to_contain_text(f"eval loss {first['loss']:.3g}")


def test_the_full_script_of_plotly_comes_with_the_heat_map_and_not_before(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    classes = {"task": "sequence_classification", "max_steps": 2, "data": {"eval_rows": 4, "train_rows": 16}}
    run = tab.page.evaluate(
        "(body) => fetch('fork/runs', {method: 'POST', body: JSON.stringify(body)}).then((it) => it.json())",
        {"settings": classes},
    )["run_id"]
    tab.wait_state(run, "finished")
    panel = tab.page.get_by_role("region", name="Evaluation rows")
    panel.get_by_role("combobox", name="run").select_option(run)
    playwright.expect(panel.locator(".tf-confusion td")).to_have_count(4, timeout=20_000)
    scripts = "[...document.querySelectorAll('script[src*=vendor]')].map((node) => node.src.split('/').pop())"
    assert "plotly.min.js" not in tab.page.evaluate(scripts)
    panel.get_by_text("As a heat map").click()
    playwright.expect(panel.locator(".tf-heat .heatmaplayer image")).to_have_count(1, timeout=SLOW)
    assert "plotly.min.js" in tab.page.evaluate(scripts)
    assert tab.faults == []
    context.close()


def test_samples_stand_on_a_timeline(tab: Tab, run: str) -> None:
    samples = fetched(tab, f"fork/runs/{run}/samples")["samples"]
    assert [sample["step"] for sample in samples] == [0, 6, 12]
    line = tab.page.locator(".tf-timeline li")
    playwright.expect(line).to_have_count(3)
    playwright.expect(line.last).to_contain_text("step 12")


def test_prompts_of_a_file_are_all_answered(tab: Tab, run: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('The film was dull.\r\n\r\n{"prompt": "The meal was warm.\\nOverall:"}\r\n', encoding="utf-8")
    panel = tab.page.get_by_role("region", name="Ask the model")
    panel.get_by_label("run").select_option(run)
    panel.locator("input[type=file]").set_input_files(file)
    playwright.expect(panel.locator(".tf-answer-row:not([aria-busy])")).to_have_count(2, timeout=SLOW)
    assert panel.locator(".tf-prompt").all_inner_texts() == ["The film was dull.", "The meal was warm.\nOverall:"]


def test_each_form_of_the_result_downloads(tab: Tab, run: str, tmp_path: Path) -> None:
    entries = {
        "Download zip": "adapter/adapter_model.safetensors",
        "Download merged model": "merged/model.safetensors",
        "Download the best weights": "adapter/adapter_model.safetensors",
    }
    for entry, name in entries.items():
        names = zipfile.ZipFile(saved(tab, run, entry, tmp_path)).namelist()
        folder = name.partition("/")[0]
        assert {name, "settings.json", f"{folder}/README.md", f"{folder}/tokenizer.json"} <= set(names), entry
    settings = json.loads(saved(tab, run, "Download settings.json", tmp_path).read_text(encoding="utf-8"))
    assert settings["seed"] == 3


def test_the_command_is_copied(tab: Tab, run: str) -> None:
    menu(tab, run, "Copy as command")
    playwright.expect(tab.page.locator(".tf-toast").filter(has_text="clipboard")).to_be_visible()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith(f"| python -m tuning run - --out {run}") and '"seed": 3' in copied


def test_the_next_run_begins_with_the_result_of_this_one(browser: Any, server: Server) -> None:
    """Start, wait, "Train on from its result", Start: with runs of its own, of which nothing was downloaded before."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    first = tab.press_start(max_steps="8", run_name="the first one")
    tab.wait_state(first, "finished")
    learned = fetched(tab, f"fork/runs/{first}/predictions")["loss"]
    untouched = fetched(tab, f"fork/runs/{first}/predictions?step=0")["loss"]
    assert learned < 0.9 * untouched, "a base that has learned nothing could not be told from its origin"
    menu(tab, first, "Train on from its result")
    playwright.expect(tab.field("model")).to_have_value(f"run:{first}", timeout=20_000)
    second = tab.press_start(run_name="the second one")
    tab.wait_state(second, "finished")
    row = tab.page.locator(f"[data-run={second}]")
    playwright.expect(row.get_by_text("from the first one", exact=True)).to_be_visible()
    panel = tab.page.get_by_role("region", name="Ask the model")
    panel.get_by_role("button", name="Ask", exact=True).click()
    questions = panel.locator(".tf-answer-row:not([aria-busy]) h3")
    playwright.expect(questions.first).to_have_text("its base, after “the first one”", timeout=SLOW)
    begun = fetched(tab, f"fork/runs/{second}/predictions?step=0")["loss"]
    assert begun == pytest.approx(learned, abs=1e-4)
    assert tab.faults == []
    context.close()


def test_a_merged_model_is_made_where_one_sees_it_and_not_offered_where_there_is_none(
    tab: Tab, run: str, tmp_path: Path
) -> None:
    small = {"max_steps": 2, "data": {"eval_rows": 4, "train_rows": 16}}
    runs = [
        tab.page.evaluate(
            "(body) => fetch('fork/runs', {method: 'POST', body: JSON.stringify(body)}).then((it) => it.json())",
            {"settings": small | {"method": {"name": name}}},
        )["run_id"]
        for name in ("prompt_tuning", "lora")
    ]
    for run_id in runs:
        tab.wait_state(run_id, "finished")
    offered = {}
    for run_id in runs:
        tab.page.locator(f"[data-run={run_id}] summary").click()
        entries = tab.page.locator(f"[data-run={run_id}] .tf-menu")
        playwright.expect(entries.get_by_text("Download the best weights")).to_be_visible()  # the server has answered
        offered[run_id] = entries.get_by_text("merged").locator("visible=true").count()
        tab.page.keyboard.press("Escape")
    assert list(offered.values()) == [0, 2]
    tab.page.route("**/results", lambda route: route.continue_() if route.request.method == "GET" else refuse(route))
    seen: list[str] = []

    def refuse(route: Any) -> None:
        seen.append(route.request.post_data)
        route.continue_()

    names = zipfile.ZipFile(saved(tab, runs[1], "Download merged model", tmp_path)).namelist()
    assert seen == ['{"form":"merged"}'] and "merged/model.safetensors" in names


def test_going_on_stands_where_it_works_and_says_from_where(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab = Tab(context, server)
    stopped = tab.press_start(max_steps="5000", run_name="a long one")
    row = tab.page.locator(f"[data-run={stopped}]")
    playwright.expect(row.locator(".tf-count")).to_contain_text(re.compile(r"^[1-9]\d*/5000"), timeout=SLOW)
    row.get_by_role("button", name="Stop a long one").click()
    tab.wait_state(stopped, "cancelled")
    step = fetched(tab, f"fork/runs/{stopped}/results")["go_on"]
    assert step > 0
    menu(tab, stopped, f"Go on from update {step}")
    playwright.expect(row.locator(".tf-count")).to_contain_text(re.compile(rf"^(?!{step}/)\d+/5000"), timeout=SLOW)
    row.locator("summary").click()
    playwright.expect(row.locator(".tf-menu").get_by_text("Use these settings again")).to_be_visible()
    playwright.expect(row.locator(".tf-menu").get_by_text(re.compile("^Go on|^Begin anew"))).not_to_be_visible()
    row.locator("summary").click()
    row.get_by_role("button", name="Stop a long one").click()
    tab.wait_state(stopped, "cancelled")
    assert tab.faults == []
    context.close()
