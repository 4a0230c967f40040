"""The house stays as drawn: imports go down, heavy packages wait, docs name what is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "assets": -1,
    "families": -1,
    "architectures": 0,
    "access": 0,
    "child": 0,
    "errors": 0,
    "files": 0,
    "events": 0,
    "locks": 0,
    "micro_batches": 0,
    "model_files": 0,
    "shapes": 0,
    "tensors": 0,
    "disk": 1,
    "fields": 1,
    "serving": 1,
    "question": 1,
    "hardware": 1,
    "models": 1,
    "text": 1,
    "settings_versions": 1,
    "torch_weights": 1,
    "weights": 2,
    "methods": 2,
    "recipes": 2,
    "hub": 2,
    "prompts": 2,
    "settings": 3,
    "data": 4,
    "settings_table": 4,
    "command": 4,
    "refusals": 5,
    "plan": 6,
    "job": 7,
    "rows": 7,
    "card": 7,
    "training": 8,
    "store": 8,
    "memory": 9,
    "executors": 9,
    "charts": 10,
    "asking": 11,
    "results": 11,
    "runs": 12,
    "web": 13,
    "ui": 14,
    "bench": 15,
    "cli": 16,
    "__main__": 17,
}
HEAVY = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "ray", "optuna", "accelerate"}
ONLY_IN = {"gradio": {"ui"}, "sqlite3": {"store"}, "fastapi": {"web", "ui"}}


def sources() -> list[Path]:
    return sorted((ROOT / "tuning").rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(ROOT / "tuning").parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, top_only: bool) -> list[tuple[int, str]]:
    found = []
    for node in tree.body if top_only and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_imports_go_down() -> None:
    wrong = []
    for path in sources():
        here = room(path)
        if here == "__init__":
            continue
        assert here in FLOORS, f"{path} has no floor: give it one"
        for line, name in imports(ast.parse(path.read_text()), top_only=False):
            parts = name.split(".")
            if parts[0] == "tuning" and len(parts) > 1 and parts[1] != here and FLOORS[parts[1]] >= FLOORS[here]:
                wrong.append(f"{path.name}:{line} {here} ({FLOORS[here]}) imports {parts[1]} ({FLOORS[parts[1]]})")
    assert not wrong, "\n".join(wrong)


def test_heavy_packages_are_imported_late_and_in_their_rooms() -> None:
    wrong = []
    for path in sources():
        here, tree = room(path), ast.parse(path.read_text())
        for line, name in imports(tree, top_only=True):
            if name.split(".")[0] in HEAVY and here != "training" and not path.stem.startswith("torch_"):
                wrong.append(f"{path.name}:{line} imports {name} at its top")
        for line, name in imports(tree, top_only=False):
            first = name.split(".")[0]
            if first in ONLY_IN and here not in ONLY_IN[first] | {"bench"}:
                wrong.append(f"{path.name}:{line} imports {first}, which lives in {ONLY_IN[first]}")
    assert not wrong, "\n".join(wrong)


def test_the_page_opens_without_heavy_packages() -> None:
    code = (
        f"import sys, tuning.cli, tuning.ui.page, tuning.web, tuning.runs\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]"), out


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        str(path)
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_methods_and_their_files_are_the_same() -> None:
    from tuning.methods import METHODS

    files = {path.stem for path in (ROOT / "tuning" / "methods").glob("*.py")} - {"__init__", "base", "network"}
    assert {name for name in files if not name.startswith("torch_")} == {method.name for method in METHODS}


def test_the_map_in_the_readme_is_the_house() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme[readme.index("<!-- map -->") : readme.index("<!-- end map -->")]
    named = set(re.findall(r"^\s+(\w+(?:\.py|/))", tree, flags=re.MULTILINE))
    rooms = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "tuning").iterdir()
        if path.name not in ("__pycache__", "__init__.py") and (path.suffix == ".py" or any(path.glob("*.py")))
    }
    assert rooms <= named, f"not in the README's map: {rooms - named}"
    missing = {name for name in named if not any((ROOT / top / name).exists() for top in (".", "tuning"))}
    assert not missing, f"in the README's map but not in the house: {missing}"
