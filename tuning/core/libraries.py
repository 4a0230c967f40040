"""Versions of installed packages, for the keys of caches."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version(package: str) -> str:
    """The version of a package; `none` where it is not installed.

    Cached, because the metadata of a package is a text that takes a millisecond to parse, and the page asks with every
    change of its form.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
