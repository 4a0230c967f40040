"""The packages stay in their layers: imports go down, heavy packages come late, the README names what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    "core",
    "text",
    "models",
    "hub",
    "methods",
    "settings",
    "data",
    "plan",
    "training",
    "memory",
    "runs",
    "web",
    "ui",
    "bench",
    "cli",
    "__main__",
)
"""The packages, the lowest first: each imports only those before it."""
HEAVY = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "ray", "optuna", "accelerate"}
ONLY_IN = {"gradio": {"ui"}, "sqlite3": {"runs"}, "fastapi": {"web", "ui"}}
MOST_BRANCHES = 15
"""Branches of the densest function: to be lowered whenever that one is taken apart, never raised."""
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.Assert)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OF_TORCH = {"fake_tensors", "tracer", "cuda_dtypes"}
"""Modules of memory/tracing/ that run in a process of their own; in methods/ such modules are called `torch_…`."""


def sources() -> list[Path]:
    return sorted((ROOT / "tuning").rglob("*.py"))


def package(path: Path) -> str:
    first = path.relative_to(ROOT / "tuning").parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, top_only: bool) -> list[tuple[int, str]]:
    names = []
    for node in tree.body if top_only and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return names


def test_imports_go_down() -> None:
    wrong = []
    for path in sources():
        here = package(path)
        if here == "__init__":
            continue
        assert here in LAYERS, f"{path} is in no layer: give its package a place in LAYERS"
        below = {"tuning", here, *LAYERS[: LAYERS.index(here)]}
        for line, name in imports(ast.parse(path.read_text()), top_only=False):
            parts = name.split(".")
            if parts[0] == "tuning" and len(parts) > 1 and parts[1] not in below:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}, which is not below {here}")
    assert not wrong, "\n".join(wrong)


def test_heavy_packages_are_imported_late_and_in_their_packages() -> None:
    wrong = []
    for path in sources():
        here, tree = package(path), ast.parse(path.read_text())
        late = here != "training" and path.stem not in OF_TORCH and not path.stem.startswith("torch_")
        for line, name in imports(tree, top_only=True):
            if name.split(".")[0] in HEAVY and late:
                wrong.append(f"{path.name}:{line} imports {name} at its top")
        for line, name in imports(tree, top_only=False):
            first = name.split(".")[0]
            if first in ONLY_IN and here not in ONLY_IN[first] | {"bench"}:
                wrong.append(f"{path.name}:{line} imports {first}, which belongs in {ONLY_IN[first]}")
    assert not wrong, "\n".join(wrong)


def test_the_page_opens_without_heavy_packages() -> None:
    code = (
        "import sys, tuning.cli, tuning.ui.page, tuning.web, tuning.runs.service\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
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


def branches(function: ast.AST) -> int:
    """One more than the branches, operands of `and` and `or`, and loops and conditions of comprehensions in a function;
    those of functions and classes inside it are their own."""
    count, nodes = 1, list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            nodes += ast.iter_child_nodes(node)
    return count


def test_branches_count_the_operands_and_conditions_that_a_reader_has_to_follow() -> None:
    code = """
def f(a, b):
    if a and b and not a:
        return [x for x in a if x if b]
    def inner(c):
        return c or a
    return inner
"""
    (function,) = ast.parse(code).body
    assert branches(function) == 1 + 1 + 2 + 3
    assert [branches(node) for node in ast.walk(function) if isinstance(node, FUNCTIONS)] == [7, 2]


def test_no_function_has_more_branches_than_a_reader_can_follow() -> None:
    dense = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {branches(node)}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, FUNCTIONS) and branches(node) > MOST_BRANCHES
    ]
    assert not dense, "\n".join(dense)


def test_methods_and_their_files_are_the_same() -> None:
    from tuning.methods import METHODS

    files = {path.stem for path in (ROOT / "tuning" / "methods").glob("*.py")} - {"__init__", "base", "network"}
    assert {name for name in files if not name.startswith("torch_")} == {method.name for method in METHODS}


def test_the_map_in_the_readme_names_every_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme[readme.index("<!-- map -->") : readme.index("<!-- end map -->")]
    named = set(re.findall(r"^\s+(\w+(?:\.py|/))", tree, flags=re.MULTILINE))
    packages = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "tuning").iterdir()
        if path.name not in ("__pycache__", "__init__.py") and (path.suffix == ".py" or any(path.glob("*.py")))
    }
    assert packages <= named, f"not in the README's map: {packages - named}"
    missing = {name for name in named if not any((ROOT / top / name).exists() for top in (".", "tuning"))}
    assert not missing, f"in the README's map but not there: {missing}"
