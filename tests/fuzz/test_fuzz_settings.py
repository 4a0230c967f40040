"""Random settings through the service's own routes: an answer or a refusal in words, never a crash.

A tier of its own: `python -m pytest tests/fuzz -k settings --fuzz 500` (25,000).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from settings import settings_object
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.service import RunService
from tuning.settings.command_line import changed_only, command_line
from tuning.settings.schema import Settings
from tuning.web import add_routes

EACH = 50
"""Settings for one of `--fuzz`."""


def test_settings_are_answered_or_refused_in_words(tmp_path: Path, fuzz: int, fuzz_seed: int) -> None:
    service = RunService(tmp_path, InlineExecutor())
    app = FastAPI()
    add_routes(app, service)
    client = TestClient(app, raise_server_exceptions=False)
    draw, wrong, statuses = random.Random(fuzz_seed), list[str](), dict[int, int]()
    for _ in range(EACH * fuzz):
        given = settings_object(draw)
        answer = client.post("/fork/estimate", content=json.dumps(given))
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        fault = judged(given, answer)
        wrong += [f"{fault}: {ascii(given)[:400]}"] if fault else []
    service.close()
    print(statuses)
    assert not wrong, f"{len(wrong)} of {EACH * fuzz}: {statuses}\n" + "\n".join(wrong[:20])


def judged(given: dict[str, Any], answer: Any) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    if answer.status_code == 422:
        problems = answer.json()["problems"]
        return (
            None
            if problems and all(problem["field"] and problem["message"] for problem in problems)
            else "a refusal without words"
        )
    if answer.status_code != 200:
        return f"status {answer.status_code}"
    plain = Settings.from_dict(given).to_dict()
    if Settings.from_dict(json.loads(json.dumps(changed_only(plain)))).to_dict() != plain:
        return "the command line means something else"
    command_line("r1", plain, Path("home")).encode("utf-8")
    return None if answer.json()["total_bytes"] > 0 else "an estimate of nothing"
