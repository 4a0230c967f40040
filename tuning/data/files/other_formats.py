"""Files that hold no rows (archives, pictures, web pages, pointers, source code, documents), and their refusals.

A refusal is the end of a sentence, to follow the file's name.
"""

from __future__ import annotations

import re

from tuning.data.files.formats import refusal_of

PLAIN_TEXT = (".txt", ".text", ".md")
"""Endings of files that are plain text whatever they hold: one that looks like something else gets a notice."""
_POINTER = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/")
_ANNEX = re.compile(rb"(\.\./)*(\.git|/annex)/\S*annex/objects/\S+\s*$|/annex/objects/\S+\s*$")
_ENDINGS = {
    ".html": "an HTML page",
    ".htm": "an HTML page",
    ".xml": "XML",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".toml": "TOML",
    ".ini": "a file of settings",
    ".cfg": "a file of settings",
    ".ipynb": "a Jupyter notebook",
    ".rtf": "an RTF document",
    ".py": "Python source",
    ".js": "JavaScript source",
    ".r": "R source",
    ".sh": "a shell script",
    ".sql": "SQL statements",
    ".tex": "a LaTeX document",
}
_TEXTS = (
    (re.compile(r"(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL), "an HTML page"),
    (re.compile(r"<\?mso-|<\?xml.{0,600}?(<w:|<pkg:|Word\.Document|office:document)", re.DOTALL), "a Word document"),
    (re.compile(r"<\?xml|<!DOCTYPE|<(rss|feed|svg)\b"), "XML"),
    (re.compile(r"\{\\rtf"), "an RTF document"),
    (re.compile(r'\{\s*"cells"\s*:\s*\[\s*(\]|\{[^{}]{0,2000}?"cell_type")'), "a Jupyter notebook"),
    (re.compile(r"%YAML|---\s*\n(#.*\n)*(- )?[\w\"'-]+:( |\n)"), "YAML"),
    (re.compile(r"- [\w\"'-]+:( .*)?\n {2,}[\w\"'-]+:( |\n)"), "YAML"),
    (re.compile(r"((//|#).*\n\s*|/\*.*?\*/\s*)+(\[\s*[{\[\"\]]|\{\s*\")", re.DOTALL), "JSON with a comment"),
    (re.compile(r"#!.*python|# -\*- coding"), "Python source"),
    (re.compile(r"#!/"), "a script"),
    (re.compile(r"(import [\w.]+( as \w+)?\s*\n|from [\w.]+ import [\w*(])"), "Python source"),
    (re.compile(r"-----BEGIN [A-Z ]+-----"), "a key or a certificate"),
)
_SIGN_IN = re.compile(r"sign[ -]?in|log[ -]?in|password", re.IGNORECASE)
_FIXES = {
    "an HTML page": "fetch the file itself, not the page about it",
    "JSON with a comment": "JSON has no comments: take them out",
    "a Jupyter notebook": "save the rows that it makes as JSONL",
}


def binary_refusal(head: bytes) -> str | None:
    """The refusal of a file by its first bytes, where these are neither text nor rows; else None."""
    if _POINTER.match(head):
        size = re.search(rb"\nsize (\d+)", head)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return (
            f"is a Git LFS pointer: the file itself{of} was not fetched; fetch it (git lfs pull) or download it again"
        )
    if len(head) < 4096 and _ANNEX.match(head):
        return "is a pointer of git-annex: the file itself was not fetched; fetch it (git annex get)"
    return refusal_of(head)


def document_title(text: str, ending: str) -> str | None:
    """What a text without rows is, such as an HTML page, YAML or source code, by its beginning or the file's ending;
    None where it may hold rows."""
    start = text.lstrip()
    title = next((title for pattern, title in _TEXTS if pattern.match(start)), None)
    return title or _ENDINGS.get(ending)


def document_refusal(title: str, text: str) -> str:
    """The refusal of a text that is what `document_title` says, to follow the file's name."""
    sign_in = " that asks to sign in" if title == "an HTML page" and _SIGN_IN.search(text[:20_000]) else ""
    fix = _FIXES.get(title, "save its rows as JSONL or CSV")
    return f"is {title}{sign_in} and no rows; {fix}. data.format lines reads it as plain text all the same"
