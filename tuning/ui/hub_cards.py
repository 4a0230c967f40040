"""The sections below the fields of base model and data: look-up on the hub, a card, and the download.

Their value is `{"settings": …}`, the settings in the form. They fire `downloaded` when what the form names has come to
this machine; that of the data triggers `set` too, with settings that were chosen on its card.
"""

from __future__ import annotations

from typing import Any

from tuning.runs.service import RunService
from tuning.ui.sections import Region, Section
from tuning.ui.values import Values


def _no_settings(service: RunService, values: Values) -> dict[str, Any]:
    """Nothing yet: the form's settings come when the page is loaded, with those of the section "Your data"."""
    return {"settings": {}}


MODEL_CARD = Section(
    kind="models",
    name="Base model on the hub",
    region=Region.BELOW_MODEL,
    events=("downloaded",),
    initial_value=_no_settings,
)
DATA_CARD = Section(
    kind="hub_data",
    name="Data set on the hub",
    region=Region.BELOW_DATA,
    events=("downloaded", "set"),
    initial_value=_no_settings,
)
