"""The pages under /fork/help: the Markdown documents of assets/docs as HTML, and the example settings to download.

A document is added by putting a file into that folder. Its first heading is its title, and its first paragraph says
what it is about. Links between documents are written as links between files, and so work on a code host as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from tuning.core.paths import asset_path

FIRST_DOCUMENT = "first-run"
"""The document that the list begins with; the others follow by title."""
DOCUMENT_NAME = re.compile(r"[a-z0-9-]+")
EXAMPLE_NAME = re.compile(r"[a-z0-9-]+\.json")
LINK_TO_DOCUMENT = re.compile(r"([a-z0-9-]+)\.md(#.*)?")
MOST_STACKED_COLUMNS = 4
"""A table of up to so many columns is stacked on a narrow page; a wider one scrolls sideways."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    ),
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of the second level, with the id that a link names."""

    anchor: str
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """One file of assets/docs."""

    name: str
    title: str
    summary: str
    """The first paragraph, as plain text."""
    sections: tuple[Section, ...]
    html: str


def add_help_routes(app: FastAPI) -> None:
    """Add the list of documents, each document, and the example settings."""

    @app.get("/fork/help")
    def contents() -> Response:
        return _page(documents(asset_path("docs")), None)

    @app.get("/fork/help/{name}")
    def document(name: str) -> Response:
        every = documents(asset_path("docs"))
        shown = next((document for document in every if document.name == name), None)
        return _page(every, shown, missing=None if shown else name)

    @app.get("/fork/examples/{name}")
    def example(name: str) -> Response:
        file = asset_path("examples") / name if EXAMPLE_NAME.fullmatch(name) else None
        if file is None or not file.is_file():
            return JSONResponse({"message": f"There is no example {name!r:.100} here."}, status_code=404)
        return FileResponse(file, media_type="application/json", filename=name, headers={"Cache-Control": "no-cache"})


def documents(folder: Path) -> list[Document]:
    """Every document of the folder, the first one to read before the others."""
    files = [file for file in folder.glob("*.md") if DOCUMENT_NAME.fullmatch(file.stem)]
    every = [document_of(file.stem, file.read_text(encoding="utf-8")) for file in files]
    return sorted(every, key=lambda document: (document.name != FIRST_DOCUMENT, document.title))


@lru_cache(maxsize=64)
def document_of(name: str, text: str) -> Document:
    """The document that a Markdown text makes. HTML in the text is shown as text and never interpreted."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("table_open", _table_open)
    markdown.add_render_rule("table_close", _table_close)
    tokens = markdown.parse(text)
    title = summary = ""
    sections = []
    for token, content in zip(tokens, tokens[1:]):
        if token.type == "heading_open":
            words = _plain_text(content)
            token.attrSet("id", _anchor(words))
            title = title or words
            if token.tag == "h2":
                sections.append(Section(_anchor(words), words))
        elif token.type == "paragraph_open" and token.level == 0:
            summary = summary or _plain_text(content)
    for token in tokens:
        if token.type == "inline":
            _set_links(token)
        elif token.type == "fence":
            token.attrSet("tabindex", "0")  # what scrolls sideways is reached by the keyboard
    _set_tables(tokens)
    html = markdown.renderer.render(tokens, markdown.options, {})
    return Document(name, title or name, summary, tuple(sections), html)


def _plain_text(inline: Token) -> str:
    """The words of a heading, a paragraph or a cell, without marks."""
    return "".join(" " if part.type == "softbreak" else part.content for part in inline.children or ())


def _anchor(title: str) -> str:
    """The id of a heading, by the rule of code hosts, so that one link works on both."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _set_links(inline: Token) -> None:
    """Point links between files at the pages that show them; a link to another host does not say where it was."""
    for part in inline.children or ():
        target = str(part.attrGet("href") or "")
        document = LINK_TO_DOCUMENT.fullmatch(target)
        if document:
            part.attrSet("href", document[1] + (document[2] or ""))
        elif target.startswith(("http:", "https:")):
            part.attrSet("rel", "noreferrer")


def _set_tables(tokens: list[Token]) -> None:
    """Give each cell the title of its column, and each table what the stylesheet needs on a narrow page."""
    heading = ""
    for start, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = _plain_text(tokens[start + 1])
        if token.type != "table_open":
            continue
        end = next(i for i in range(start, len(tokens)) if tokens[i].type == "table_close")
        titles = [_plain_text(tokens[i + 1]) for i in range(start, end) if tokens[i].type == "th_open"]
        cells = [tokens[i] for i in range(start, end) if tokens[i].type == "td_open"]
        for i, cell in enumerate(cells):
            cell.attrSet("data-column", titles[i % len(titles)])
        token.meta = {"label": f"Table: {heading}", "wide": len(titles) > MOST_STACKED_COLUMNS}


def _table_open(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """A wide table stands in a box that scrolls sideways and can be reached by the keyboard."""
    if not tokens[index].meta["wide"]:
        return '<div><table class="stacked">'
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(tokens[index].meta["label"])}"><table>'


def _table_close(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    return "</table></div>"


def _page(every: list[Document], shown: Document | None, missing: str | None = None) -> Response:
    """The list beside a document; `missing` is a name that no document has."""
    environment = Environment(loader=FileSystemLoader(asset_path("help")), autoescape=True)
    page = environment.get_template("page.html").render(documents=every, shown=shown, missing=missing)
    return HTMLResponse(page, status_code=200 if missing is None else 404, headers=HEADERS)
