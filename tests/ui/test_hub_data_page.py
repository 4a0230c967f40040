"""A person finds a data set on the hub, looks at a subset of it, downloads and trains on it; all in the browser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from support.browser import SLOW, Tab, open_browser, open_server, playwright
from support.hub_server import open_hub

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "town/talks"
CARD = """---
license: cc-by-4.0
configs:
- {config_name: meals, data_files: meals/*}
- {config_name: beds, data_files: [{split: train, path: beds/train.jsonl}, {split: test, path: beds/test.jsonl}]}
---
"""


def write_rows(file: Path, word: str, count: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": f"{word} {n} was good"}) + "\n" for n in range(count)))


def test_from_a_typed_id_to_a_finished_run(tmp_path: Path) -> None:
    folder, expect = tmp_path / "served", playwright.expect
    for file, count in (("meals/all", 30), ("beds/train", 20_000), ("beds/test", 10)):
        write_rows(folder / f"{file}.jsonl", file, count)
    (folder / "README.md").write_text(CARD)
    with open_hub(datasets={NAME: folder}) as hub:
        env = dict(os.environ) | {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}
        env |= {"HF_HUB_CACHE": str(tmp_path / "cache")}
        with open_server(tmp_path / "home", env) as server, open_browser() as browser:
            tab = Tab(browser.new_context(), server)
            page, card = tab.page, tab.page.locator("#tf-hub-data .tf-model")
            tab.field("data.source").fill(NAME)
            tab.field("data.source").press("Enter")
            expect(page.locator("#f-data-source")).to_contain_text("not downloaded yet", timeout=SLOW)
            assert hub.requests == [], "the hub was asked while typing"
            page.get_by_role("button", name="Look up data").press("Enter")
            expect(card).to_contain_text("choose one with data.subset", timeout=SLOW)
            card.get_by_role("group", name="Subsets").get_by_role("button", name="beds").click()
            expect(card).to_contain_text("beds/train 0 was good", timeout=SLOW)
            for word in ("cc-by-4.0", "train", "test", "subset beds"):
                expect(card).to_contain_text(word)
            hub.seconds_a_piece = 0.05
            card.get_by_role("button", name=re.compile("^Download")).press("Enter")
            expect(card.get_by_role("button", name="Cancel")).to_be_focused(timeout=SLOW)
            page.wait_for_function("Number(document.querySelector('#tf-hub-data [role=progressbar]').ariaValueNow) > 3")
            page.keyboard.press("Enter")
            again = card.get_by_role("button", name=re.compile("^Go on downloading"))
            again.wait_for(timeout=SLOW)
            hub.seconds_a_piece = 0.0
            again.press("Enter")
            card.get_by_text("on this machine", exact=True).wait_for(timeout=SLOW)
            expect(page.locator("#tf-your-data summary")).to_contain_text("20,000 + 10 rows", timeout=SLOW)
            expect(page.locator("#f-data-source .tf-problem")).to_have_count(0)
            run = tab.press_start(max_steps="2")
            tab.wait_state(run, "finished")
            assert tab.faults == []
