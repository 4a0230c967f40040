"""From the click on Start to the first point in the browser: warm, and cold in a fresh server.

The table has wall seconds. Needs Chromium and the `test` extra (Playwright).
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from typing import Any

from tuning.bench.measure import markdown
from tuning.bench.start import free_port, serve, wait_until_served

FIRST_POINT = """async (known) => {
  const answer = await fetch('/fork/live?cur=');
  const runs = (await answer.json()).runs || [];
  const fresh = runs.filter((run) => !known.includes(run.run_id) && run.step >= 1);
  return fresh.length > 0;
}"""


def table(repeats: int) -> str:
    """Measure and draw the table."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        return "### Click to first point\n\nskipped: no Chromium on this machine\n"
    cold, warm = [], []
    for _ in range(repeats):
        first, second = _click_seconds(chromium)
        cold.append(first)
        warm.append(second)
    lines = [["cold, page just opened", f"{statistics.median(cold):.2f}"], ["warm", f"{statistics.median(warm):.2f}"]]
    return markdown(f"Wall seconds from the click on Start to the first point, median of {repeats}", ["", "s"], lines)


def _click_seconds(chromium: str) -> tuple[float, float]:
    from playwright.sync_api import sync_playwright

    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        server, token = serve(port, home)
        try:
            wait_until_served(port, token)
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{port}/?token={token}")
                page.locator("#tf-start").wait_for()
                page.wait_for_timeout(1500)
                cold = _press(page)
                page.wait_for_timeout(500)
                _stop_all(page)
                warm = _press(page)
                browser.close()
            return cold, warm
        finally:
            server.terminate()
            server.wait()


def _press(page: Any) -> float:
    before = page.evaluate(
        "async () => ((await (await fetch('/fork/live?cur=')).json()).runs || []).map(r => r.run_id)"
    )
    began = time.monotonic()
    page.locator("#tf-start").click()
    while not page.evaluate(FIRST_POINT, before):
        if time.monotonic() - began > 120:
            raise TimeoutError("no point within 120 seconds of pressing Start")
        time.sleep(0.05)
    return time.monotonic() - began


def _stop_all(page: Any) -> None:
    page.evaluate("""async () => {
      const live = await (await fetch('/fork/live?cur=')).json();
      for (const run of live.runs || []) await fetch('/fork/runs/' + run.run_id + '/stop', {method: 'POST'});
      for (let tries = 0; tries < 100; tries++) {
        const runs = (await (await fetch('/fork/live?cur=')).json()).runs || [];
        if (runs.every((run) => ['finished', 'cancelled', 'failed', 'interrupted'].includes(run.state))) return;
        await new Promise((done) => setTimeout(done, 100));
      }
    }""")
