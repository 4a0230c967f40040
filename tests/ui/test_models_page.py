"""A person finds a model on the hub, downloads it, changes their mind, goes on, and trains it; all in the browser."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from support.browser import SLOW, Tab, open_browser, open_server, playwright
from support.hub_server import open_hub
from support.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
NAME, SECRET = "town/small-chat", "hf_secretsecretsecret"


def test_from_a_typed_id_to_a_finished_run(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "served", vocab_size=8192, max_position_embeddings=256)
    tiny_tokenizer(folder, chat=True)
    with open_hub(models={NAME: folder}) as hub:
        env = dict(os.environ) | {
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        with open_server(tmp_path / "home", env) as server, open_browser() as browser:
            tab = Tab(browser.new_context(), server)
            page, card = tab.page, tab.page.locator("#tf-models .tf-model")
            tab.field("model").fill(NAME)
            tab.field("model").press("Enter")
            playwright.expect(page.locator("#f-model")).to_contain_text("not downloaded yet", timeout=SLOW)
            assert hub.requests == [], "the hub was asked while typing"
            hub.gated_by, hub.seconds_a_piece = SECRET, 0.05
            page.locator("#tf-models").get_by_role("button", name="Look up").press("Enter")
            token = page.get_by_label("Token for a gated or private model")
            playwright.expect(token).to_be_focused(timeout=SLOW)
            assert token.get_attribute("type") == "password" and token.get_attribute("autocomplete") == "off"
            token.fill(SECRET)
            token.press("Enter")
            playwright.expect(card).to_contain_text("chat-tuned", timeout=SLOW)
            for word in ("llama", "apache-2.0", "256 tokens", "fits"):
                playwright.expect(card).to_contain_text(word)
            card.get_by_role("button", name=re.compile("^Download")).press("Enter")
            playwright.expect(card.get_by_role("button", name="Cancel")).to_be_focused(timeout=SLOW)
            page.wait_for_function("Number(document.querySelector('.tf-model [role=progressbar]').ariaValueNow) > 3")
            page.keyboard.press("Enter")
            again = card.get_by_role("button", name=re.compile("^Go on downloading"))
            again.wait_for(timeout=SLOW)
            hub.seconds_a_piece = 0.0
            again.press("Enter")
            card.get_by_text("on this machine", exact=True).wait_for(timeout=SLOW)
            playwright.expect(page.locator("#tf-token")).to_have_value("")
            playwright.expect(page.locator("#f-model .tf-hint")).to_contain_text("conversations", timeout=SLOW)
            playwright.expect(page.locator("#f-model .tf-problem")).to_have_count(0)
            run = tab.press_start(max_steps="2")
            tab.wait_state(run, "finished")
            assert tab.faults == []
    for path in (tmp_path / "home", tmp_path / "cache"):
        assert not any(SECRET.encode() in file.read_bytes() for file in path.rglob("*") if file.is_file())
