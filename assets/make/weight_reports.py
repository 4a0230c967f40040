"""The reports of how transformers loads the bundled models' tensors, written to assets/models/weights.json.

    python assets/make/weight_reports.py

Without it the first look at the page would wait for the libraries. Run it after a change of a bundled model or an
upgrade of transformers; tests/models/test_tensors.py fails until then.
"""

from __future__ import annotations

import json

from tuning.core.paths import assets_folder
from tuning.models.base_model import model_catalogue
from tuning.models.weights import SHIPPED, shipped_reports

if __name__ == "__main__":
    reports = shipped_reports(list(model_catalogue()))
    (assets_folder() / SHIPPED).write_text(json.dumps(reports, indent=1, sort_keys=True) + "\n", encoding="utf-8")
