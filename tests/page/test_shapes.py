"""The shapes that cross from Python to the page: assets/page/shapes.d.ts declares what the classes here have."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints, is_typeddict

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.quick_runs import SMALL, until
from tuning.core.errors import Notice, Problem
from tuning.hub.download import Download
from tuning.runs.service import RunService
from tuning.ui.preview import preview_value
from tuning.ui.values import first_values
from tuning.web import add_routes

SHAPES = Path(__file__).resolve().parents[2] / "assets" / "page" / "shapes.d.ts"
GROUP = re.compile(r"// (tuning\.[\w.]+)(?:, as to_dict\(\) writes (?:it|them))?")
INTERFACE = re.compile(r"export interface (\w+)(?: extends (\w+))? \{")
MEMBER = re.compile(r"  (\w+)(\??): ")
AS_DICT = {
    "Problem": Problem("seed", -1, "0 or more", "too small").to_dict(),
    "Notice": Notice(field="seed", message="rounded").to_dict(),
    "Download": Download("org/name", None, 1, 0).to_dict(),
}
"""Examples of the classes that write themselves."""


@dataclasses.dataclass
class Shape:
    """An interface of shapes.d.ts, with the module of the Python class that it stands for."""

    name: str
    module: str
    members: dict[str, bool]
    """Whether each may be missing."""


def shapes() -> list[Shape]:
    declared: dict[str, Shape] = {}
    module, shape = "", None
    for line in SHAPES.read_text(encoding="utf-8").splitlines():
        if group := GROUP.fullmatch(line):
            module = group[1]
        elif head := INTERFACE.fullmatch(line):
            shape = Shape(head[1], module, dict(declared[head[2]].members) if head[2] else {})
            declared[shape.name] = shape
        elif line == "}":
            shape = None
        elif shape is not None and (member := MEMBER.match(line)):
            shape.members[member[1]] = member[2] == "?"
    return list(declared.values())


def members_in_python(shape: Shape) -> dict[str, bool]:
    if shape.name in AS_DICT:
        return dict.fromkeys(AS_DICT[shape.name], False)
    of = getattr(importlib.import_module(shape.module), shape.name)
    if dataclasses.is_dataclass(of):
        return {field.name: False for field in dataclasses.fields(of)}
    assert is_typeddict(of)
    hints = get_type_hints(of, include_extras=True)
    return {name: get_origin(hint) is NotRequired for name, hint in hints.items()}


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.name)
def test_a_shape_has_the_keys_of_its_class(shape: Shape) -> None:
    assert shape.members == members_in_python(shape)


def keys(name: str) -> tuple[set[str], set[str]]:
    """The keys that a shape always has, and all that it can have."""
    (members,) = [shape.members for shape in shapes() if shape.name == name]
    return {key for key, may_lack in members.items() if not may_lack}, set(members)


def check(name: str, value: dict[str, Any]) -> None:
    needed, possible = keys(name)
    assert needed <= set(value) <= possible, name


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunService]:
    service = RunService(tmp_path_factory.mktemp("home"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service: RunService) -> TestClient:
    app = FastAPI()
    add_routes(app, service)
    return TestClient(app, base_url="http://localhost")


def test_the_answers_of_a_run_have_these_shapes(service: RunService, client: TestClient) -> None:
    run_id = service.start(SMALL, name="shapes")
    until(lambda: service.run(run_id).state == "finished")
    answer = client.get(f"/fork/live?cur={run_id}:0").json()
    check("LiveAnswer", answer)
    (line,) = answer["runs"]
    check("RunLine", line)
    for key, shape in (("settings", "RunSettings"), ("plan", "RunPlan"), ("estimate", "RunEstimate")):
        check(shape, line[key])
    points = answer["points"][run_id]
    check("Points", points)
    check("StepEvent", points["step"][0])
    check("EvalEvent", points["eval"][0])
    states = client.get(f"/fork/runs/{run_id}/results").json()
    check("ResultStates", states)
    check("ResultState", states["forms"]["trained"])
    assert states["recovered_from"] is None, "it has saved its result itself"
    predictions = client.get(f"/fork/runs/{run_id}/predictions").json()
    check("Predictions", predictions)
    check("PredictionRow", predictions["rows"][0])
    check("DiskUse", client.get("/fork/disk").json())


def test_the_preview_has_these_shapes(service: RunService) -> None:
    value = preview_value(service, first_values())
    check("PreviewValue", json.loads(json.dumps(value)))
    assert value["tiles"] and value["memory"] and value["network"] and value["outlook"]
    check("Tile", dict(value["tiles"][0]))
    check("MemoryBar", dict(value["memory"]))
    check("NetworkView", dict(value["network"]))
    check("MemoryQuestion", dict(value["outlook"]))
    wrong = preview_value(service, first_values() | {"seed": "x"})
    check("PreviewValue", dict(wrong))
    check("FieldProblem", dict(wrong["problems"][0]))


def test_the_preview_of_the_data_has_these_shapes(client: TestClient) -> None:
    preview = client.post("/fork/data/preview", json=SMALL).json()
    check("DataPreview", preview)
    check("TokenView", preview["tokens"][0])
    check("Lengths", preview["lengths"])
    check("BadRows", preview["bad"])
    check("PreviewRow", preview["rows"][0])


def test_the_figures_of_memory_have_these_shapes(client: TestClient) -> None:
    answer = client.post("/fork/memory", json=SMALL).json()
    check("MemoryAnswer", answer)
    check("Curves", answer["rows"])
    check("Curve", answer["rows"]["curves"][0])
    check("DeviceShare", answer["several"][0])


def test_the_description_of_a_model_and_of_a_data_set_have_these_shapes(client: TestClient) -> None:
    model = client.post("/fork/models/lookup", json={"model": "tiny-town"}).json()
    check("ModelDescription", model)
    check("ModelFit", model["fits"][0])
    check("DataDescription", client.post("/fork/data/lookup", json={"source": "reviews"}).json())
