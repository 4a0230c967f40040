"""Names of classes that a data set's card gives for the numbers in its rows.

They stand in the `dataset_info` of a card (the `class_label` feature of the `datasets` library). What is not written as
it should be is passed over: the numbers themselves are still there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_CLASSES = 1_000
Classes = dict[str, tuple[str, ...]]
"""Column -> names."""


def classes_of(info: Any) -> dict[str, Classes]:
    """Subset -> column -> names; the subset is empty where the card does not say of which it speaks."""
    found = dict[str, Classes]()
    for one in info if isinstance(info, list) else [info]:
        if isinstance(one, Mapping):
            features = one.get("features")
            named = {
                str(feature.get("name")): names
                for feature in (features if isinstance(features, list) else [])
                if isinstance(feature, Mapping) and (names := _names(feature.get("dtype")))
            }
            if named:
                found[str(one.get("config_name") or "")] = named
    return found


def of_subset(classes: Mapping[str, Classes], subset: str) -> Classes:
    """What is said of this subset, or of whichever."""
    return classes.get(subset) or classes.get("") or {}


def _names(dtype: Any) -> tuple[str, ...] | None:
    about = dtype.get("class_label") if isinstance(dtype, Mapping) else None
    given = about.get("names") if isinstance(about, Mapping) else None
    if isinstance(given, Mapping):
        by_number = {str(number): str(name) for number, name in given.items()}
        given = [by_number.get(str(number)) for number in range(len(by_number))]
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_CLASSES or None in given:
        return None
    names = tuple(map(str, given))
    return names if len(set(names)) == len(names) and all(name.strip() for name in names) else None
