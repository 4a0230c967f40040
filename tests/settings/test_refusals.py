"""Every refusal of settings is the recorded one: its field, value, limit, sentence and place among the others."""

from __future__ import annotations

import json
from pathlib import Path

from support.refusal_cases import answer, cases

RECORD = Path(__file__).parent / "refusals.jsonl"
"""One answer of `refusal_cases.answer` a line, in the order of `refusal_cases.cases`. To write it anew after a setting
has been added or a sentence changed: `python tests/settings/test_refusals.py`; then read its diff."""


def lines() -> list[str]:
    return [json.dumps(answer(given)) for given in cases()]


def test_bad_inputs_are_refused_in_the_recorded_words() -> None:
    given, recorded = cases(), RECORD.read_text(encoding="ascii").splitlines()
    assert len(recorded) == len(given) > 3_000
    differing = [
        f"{ascii(settings)[:200]}\n  recorded {old[:400]}\n  now      {new[:400]}"
        for settings, old, new in zip(given, recorded, lines(), strict=True)
        if old != new
    ]
    assert not differing, f"{len(differing)} of {len(given)} differ:\n" + "\n".join(differing[:10])


if __name__ == "__main__":
    RECORD.write_text("\n".join(lines()) + "\n", encoding="ascii")
