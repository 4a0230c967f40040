"""How the page's scripts and styles are laid out: short lines, checked types, and every request in one module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SCRIPTS = [ASSETS / "page.js", *sorted((ASSETS / "page").glob("*.js"))]
FILES = [ASSETS / "page.css", *SCRIPTS, *sorted((ASSETS / "page").glob("*.ts"))]
LINE_LENGTH = 120
UNITS = re.compile(r"\b[KMG]iB\b|\$\{[^}]*\} (s|min|h)`")
"""What a size or a duration is written with."""

by_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_line_is_longer_than_in_python(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line_number for line_number, line in enumerate(lines, 1) if len(line) > LINE_LENGTH] == []


@by_script
def test_a_script_has_its_types_checked_and_says_what_it_is_for(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first == "// @ts-check"
    assert second.startswith("// ") and len(second) > 20


@by_script
def test_only_the_module_of_requests_asks_the_server(path: Path) -> None:
    request = re.search(r"\bfetch\(|XMLHttpRequest|EventSource|WebSocket|sendBeacon", path.read_text(encoding="utf-8"))
    assert (request is not None) == (path.name == "requests.js")


@by_script
def test_only_the_module_of_formats_writes_sizes_and_durations(path: Path) -> None:
    assert (UNITS.search(path.read_text(encoding="utf-8")) is not None) == (path.name == "format.js")


@by_script
def test_text_goes_into_the_page_as_text(path: Path) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", path.read_text(encoding="utf-8"))
