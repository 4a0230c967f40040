"""The wheel holds all it needs: installed elsewhere, the bundled files are found and an estimate can be made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WHERE = "import tuning, tuning.core.paths as a; print(tuning.__file__); print(a.assets_folder())"
FILES = (
    "page.js",
    "page.css",
    "page/polling.js",
    "page/shapes.d.ts",
    "help/page.html",
    "help/help.css",
    "docs/settings.md",
    "examples/classify-full.json",
    "vendor/plotly-basic.min.js",
    "vendor/plotly-basic.LICENSE.txt",
    "models/tiny-town/config.json",
    "models/tiny-town/model.safetensors",
    "models/tiny-town/tokenizer.json",
    "data/reviews/card.json",
    "data/reviews/train.jsonl",
)

NOT_IN_THE_WHEEL = ("page.png",)
"""The picture in the README."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: what an earlier build left in the checkout cannot help."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("tuning", "assets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def python(installed: Path, elsewhere: Path, *arguments: str, stdin: str | None = None) -> str:
    """What Python prints in another folder, where only the installed package can be found."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=elsewhere, env=env, input=stdin, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_source_and_every_bundled_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    source = wheel.parent / "source"
    sources = {path.relative_to(source).as_posix() for path in (source / "tuning").rglob("*.py")}
    assets = {
        path.relative_to(source / "assets").as_posix() for path in (source / "assets").rglob("*") if path.is_file()
    }
    bundled = {
        f"tuning/_assets/{name}"
        for name in assets
        if not (name.startswith("make/") or name.rpartition("/")[2].startswith(".") or name in NOT_IN_THE_WHEEL)
    }
    assert sources - inside == set()
    assert bundled - inside == set()
    assert set(FILES) <= {name.removeprefix("tuning/_assets/") for name in inside}


def test_what_makes_the_bundled_files_stays_out_of_the_wheel(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    made = [
        name for name in inside if name.startswith(("tuning/_assets/make/", "tests/")) or name.endswith((".c", ".png"))
    ]
    assert made == []


def test_an_installed_wheel_finds_its_own_files(installed: Path, tmp_path: Path) -> None:
    package, folder = python(installed, tmp_path, "-c", WHERE).splitlines()
    assert Path(package).is_relative_to(installed)
    assert Path(folder) == installed / "tuning" / "_assets"
    code = f"from tuning.core.paths import asset_path\nfor name in {FILES!r}: print(asset_path(*name.split('/')))"
    paths = python(installed, tmp_path, "-c", code).splitlines()
    assert [Path(line) for line in paths] == [Path(folder, name) for name in FILES]


def test_an_installed_wheel_estimates_the_bundled_default(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    from_file = json.loads(python(installed, tmp_path, "-m", "tuning", "estimate", "settings.json"))
    assert sum(from_file["parts"].values()) == from_file["total_bytes"] > 1_000_000
    assert json.loads(python(installed, tmp_path, "-m", "tuning", "estimate", "-", stdin="{}")) == from_file


def test_an_installed_wheel_serves_its_documents_and_examples(installed: Path, tmp_path: Path) -> None:
    code = (
        "from fastapi import FastAPI\nfrom fastapi.testclient import TestClient\n"
        "from tuning.web.help import add_help_routes\napp = FastAPI()\nadd_help_routes(app)\nclient = TestClient(app)\n"
        "for path in ('help', 'help/settings', 'examples/classify-full.json'):\n"
        "    print(client.get('/fork/' + path).status_code)"
    )
    assert python(installed, tmp_path, "-c", code).split() == ["200", "200", "200"]


def test_an_installed_wheel_has_the_command(installed: Path, tmp_path: Path) -> None:
    (command,) = (installed / "bin").glob("tuning-fork*")
    assert "| `micro_batch_size` |" in python(installed, tmp_path, str(command), "settings")
