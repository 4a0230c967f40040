"""Recognises what is no file of rows: archives, pictures, web pages, pointers, source code, documents.

The words that are returned follow the file's name in a refusal.
"""

from __future__ import annotations

import re

from tuning.data.files.formats import refusal_of

PLAIN_TEXT = (".txt", ".text", ".md")
"""Endings of files that are text whatever stands in them: what looks like something else gets a notice."""
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


def binary(head: bytes) -> str | None:
    """What the first bytes are, where they are no text and no rows."""
    if _POINTER.match(head):
        size = re.search(rb"\nsize (\d+)", head)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return (
            f"is a Git LFS pointer: the file itself{of} was not fetched; fetch it (git lfs pull) or download it again"
        )
    if len(head) < 4096 and _ANNEX.match(head):
        return "is a pointer of git-annex: the file itself was not fetched; fetch it (git annex get)"
    return refusal_of(head)


def document(text: str, ending: str) -> str | None:
    """What this text is, where it is no rows: an HTML page, YAML, source code, by its beginning or its ending."""
    start = text.lstrip()
    found = next((title for rule, title in _TEXTS if rule.match(start)), None)
    return found or _ENDINGS.get(ending)


def document_words(title: str, text: str) -> str:
    """The refusal of such a text, to follow the file's name."""
    signing = " that asks to sign in" if title == "an HTML page" and _SIGN_IN.search(text[:20_000]) else ""
    fix = _FIXES.get(title, "save its rows as JSONL or CSV")
    return f"is {title}{signing} and no rows; {fix}. data.format lines reads it as plain text all the same"
