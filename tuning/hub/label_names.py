"""Names of classes, which a data set's card gives for the class numbers in its rows.

They stand in the `dataset_info` of a card (the `class_label` feature of the `datasets` library). A malformed entry is
ignored, for the numbers themselves can still be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_CLASSES = 1_000
Classes = dict[str, tuple[str, ...]]
"""Names of classes by column."""


def classes_of(info: Any) -> dict[str, Classes]:
    """Names of classes by subset and column, from the `dataset_info` of a card; an entry without a subset is under
    ""."""
    by_subset = dict[str, Classes]()
    for entry in info if isinstance(info, list) else [info]:
        if isinstance(entry, Mapping) and (classes := _classes(entry.get("features"))):
            by_subset[str(entry.get("config_name") or "")] = classes
    return by_subset


def _classes(features: Any) -> Classes:
    """Names of classes by column, from the features of one subset."""
    return {
        str(feature.get("name")): names
        for feature in (features if isinstance(features, list) else [])
        if isinstance(feature, Mapping) and (names := _names(feature.get("dtype")))
    }


def classes_of_subset(classes: Mapping[str, Classes], subset: str) -> Classes:
    """Names of classes of this subset, or those that the card gives without a subset."""
    return classes.get(subset) or classes.get("") or {}


def _names(dtype: Any) -> tuple[str, ...] | None:
    """The distinct names of a `class_label` type, in the order of their numbers; None where it is none."""
    label = dtype.get("class_label") if isinstance(dtype, Mapping) else None
    given = label.get("names") if isinstance(label, Mapping) else None
    if isinstance(given, Mapping):
        by_number = {str(number): str(name) for number, name in given.items()}
        given = [by_number.get(str(number)) for number in range(len(by_number))]
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_CLASSES or None in given:
        return None
    names = tuple(map(str, given))
    return names if len(set(names)) == len(names) and all(name.strip() for name in names) else None
