"""Where the bundled files are, from any working directory, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def assets_folder() -> Path:
    """The folder of bundled files: inside the package in a wheel, beside it in a checkout."""
    for folder in (_PACKAGE / "_assets", _PACKAGE.parent / "assets"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the bundled assets are missing: looked in {_PACKAGE / '_assets'} and beside the package")


def asset_path(*parts: str) -> Path:
    """The path of a bundled file or folder. Raises FileNotFoundError where it is missing."""
    path = assets_folder().joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"no bundled file {'/'.join(parts)}")
    return path
