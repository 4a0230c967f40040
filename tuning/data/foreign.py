"""What is no file of rows, named by what it is: archives, pictures, web pages, pointers, source code, documents.

Comes in: a file's first bytes or its first text, and its name.  Goes out: words for a person that follow the name, or
None; and the format that a name's ending promises.  Knows nothing of rows.
"""

from __future__ import annotations

import re
from pathlib import PurePath

PROMISED = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv"}
"""What a file of this ending has to be; another content is refused and never read as plain text."""
PLAIN_TEXT = (".txt", ".text", ".md")
"""Endings of files that are text whatever stands in them: what looks like something else is told."""
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
FAMILIES = {"jsonl": "json", "json": "json", "csv": "csv", "parquet": "parquet", "lines": "text", "paragraphs": "text"}
"""Each format by the family that an ending promises."""
TITLES = {"json": "JSON", "csv": "a table (CSV, TSV)", "parquet": "Parquet", "text": "plain text"}
_PICKLE = "is a pickle, which can run code when it is opened; save the rows as JSONL"
_BINARY = (
    (b"\x1f\x8b", "is compressed with gzip again; unpack it first (gunzip)"),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel or Word file; save the sheet as CSV"),
    (b"BZh", "is compressed with bzip2 again; unpack it first (bunzip2)"),
    (b"\xfd7zXZ", "is compressed with xz again; unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd again; unpack it first (unzstd)"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4; unpack it first (unlz4)"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"%PDF", "is a PDF; copy its text into a plain text file"),
    (b"SQLite format 3", "is an SQLite database; export a table as CSV"),
    (b"ARROW1", "is an Arrow IPC file; save it as Parquet"),
    (b"\xff\xff\xff\xff", "is an Arrow stream, as save_to_disk writes it; save it as Parquet (to_parquet)"),
    (b"FEA1", "is a Feather file; save it as Parquet"),
    (b"ORC", "is an ORC file; save it as Parquet"),
    (b"Obj\x01", "is an Avro file; save it as Parquet"),
    (b"\x89HDF", "is an HDF5 file; save the rows as Parquet"),
    (b"\x93NUMPY", "is a NumPy array; give rows of text"),
    (b"GGUF", "is the weights of a model; give rows of text"),
    (b"\x89PNG", "is a picture; give rows of text"),
    (b"\xff\xd8\xff", "is a picture; give rows of text"),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
)
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


def ending_of(name: str) -> str:
    """The ending that says what the rows are: .jsonl of rows.jsonl.gz."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in PACKED else path.suffix


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
    magics = (*_BINARY, (head[:257] + b"ustar", "is a tar archive of files; unpack it and give the folder"))
    return next((words for magic, words in magics if head.startswith(magic)), None)


def document(text: str, ending: str) -> str | None:
    """What this text is, where it is no rows: an HTML page, YAML, source code; told by its beginning or its ending."""
    start = text.lstrip()
    found = next((title for rule, title in _TEXTS if rule.match(start)), None)
    return found or _ENDINGS.get(ending)


def document_words(title: str, text: str) -> str:
    """The refusal of such a text, to follow the file's name."""
    signing = " that asks to sign in" if title == "an HTML page" and _SIGN_IN.search(text[:20_000]) else ""
    fix = _FIXES.get(title, "save its rows as JSONL or CSV")
    return f"is {title}{signing} and no rows; {fix}. data.format lines reads it as plain text all the same"
