"""Help: the documents of assets/docs as pages, their links, and what a document may not do."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from support.routes import client_of
from tuning.web.guard import guard
from tuning.web.help import add_help_routes, document_of, documents
from tuning.web.serving import Keys, Serving
from tuning.web.static import add_static_routes

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "assets" / "docs"
NAMES = sorted(file.stem for file in DOCS.glob("*.md"))
KEY = "k" * 43


@pytest.fixture
def client() -> TestClient:
    return client_of(lambda app: (add_help_routes(app), add_static_routes(app)))


class Links(HTMLParser):
    """The addresses that a page names, and its anchors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value for name in ("href", "src") if (value := given.get(name))]
        self.anchors |= {value for value in [given.get("id")] if value}


def test_help_lists_every_document_of_the_folder_with_what_it_is_about(client: TestClient) -> None:
    page = client.get("/fork/help")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert {f"help/{name}" for name in NAMES} <= set(Links(page.text).addresses)
    for document in documents(DOCS):
        assert document.title in page.text and document.summary, document.name
    assert documents(DOCS)[0].name == "first-run", "what a newcomer reads first is the first in the list"


@pytest.mark.parametrize("name", [None, *NAMES])
def test_every_link_of_a_document_leads_somewhere(client: TestClient, name: str | None) -> None:
    address = "/fork/help" + (f"/{name}" if name else "")
    for target in Links(client.get(address).text).addresses:
        to = urlsplit(urljoin(address, target))
        if to.scheme in ("http", "https", "data") or to.path == "/":
            continue
        answer = client.get(to.path)
        assert answer.status_code == 200, target
        assert not to.fragment or to.fragment in Links(answer.text).anchors, target


@pytest.mark.parametrize("file", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda file: file.name)
def test_the_same_links_work_between_the_files(file: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (file.parent / target.partition("#")[0] if target[0] != "#" else file).exists(), target


def test_headings_tables_and_code_become_html(client: TestClient) -> None:
    page = client.get("/fork/help/settings").text
    assert '<h1 id="settings">Settings</h1>' in page
    assert '<td data-column="setting"><code>micro_batch_size</code></td>' in page
    assert '<pre><code tabindex="0" class="language-sh">' in client.get("/fork/help/command-line").text


def test_html_and_scripts_in_a_document_are_shown_and_never_run() -> None:
    text = '# A <b>title</b>\n\n<script>alert(1)</script>\n\n[press](javascript:alert(1)) ![](x" onerror="alert(1))'
    document = document_of("odd", text + "\n\n| <i>a</i> |\n|---|\n| <img src=x> |\n")
    assert not re.search(r"<(script|b|i|img src=x)\b", document.html)
    assert 'href="javascript' not in document.html and 'onerror="' not in document.html
    assert "&lt;script&gt;" in document.html


def test_a_page_of_help_may_load_from_this_server_alone(client: TestClient) -> None:
    policy = client.get("/fork/help/data").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize("name", ["nothing", "..%2fexamples", "settings.md", "%3Cscript%3E", "SETTINGS", "a" * 5000])
def test_a_name_without_a_document_is_answered_by_the_list(client: TestClient, name: str) -> None:
    answer = client.get(f"/fork/help/{name}")
    assert answer.status_code == 404
    assert "<script>" not in answer.text and "no document of that name" in answer.text or "%2f" in name


@pytest.mark.parametrize("name", ["nothing.json", "..%2fpage.js", "lora-own-prompts", "..%2f..%2fpyproject.toml"])
def test_nothing_but_the_examples_is_sent_as_one(client: TestClient, name: str) -> None:
    assert client.get(f"/fork/examples/{name}").status_code == 404


def test_an_example_is_sent_as_a_file(client: TestClient) -> None:
    answer = client.get("/fork/examples/classify-full.json")
    assert answer.json()["task"] == "sequence_classification"
    assert answer.headers["content-disposition"] == 'attachment; filename="classify-full.json"'


def test_help_is_behind_the_token_like_everything_else(tmp_path: Path) -> None:
    client = client_of(lambda app: (guard(app, Serving(keys=Keys(KEY)), tmp_path), add_help_routes(app)))
    for address in ("/fork/help", "/fork/help/settings", "/fork/examples/classify-full.json"):
        assert client.get(address).status_code == 403
        assert client.get(address, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
