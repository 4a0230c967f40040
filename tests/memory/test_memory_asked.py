"""The doors to the memory estimate: command line, routes, and what is said where a model cannot be traced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from support.memory_peaks import GPT2, config_folder
from tuning.cli import main
from tuning.core.errors import TuningError
from tuning.core.hardware import named_device
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.tracing.table_cache import make_table, untraceable
from tuning.memory.usage import MemoryUsage, usage_of
from tuning.memory.what_if import what_if
from tuning.plan.plan import plan_for
from tuning.runs.executors.inline import InlineExecutor
from tuning.runs.service import RunService
from tuning.settings.schema import Settings
from tuning.ui.page import build_app
from tuning.ui.preview import preview_value
from tuning.ui.values import values_from_settings


def test_the_command_line_estimates_a_config_without_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"model": config_folder(tmp_path / "gpt2", GPT2)}), encoding="utf-8")
    assert main(["estimate", str(file), "--device", "t4 16 gb"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "traced" and answer["fits"] and answer["device"] == "T4 16 GB"
    assert answer["total_bytes"] == sum(answer["parts"].values())
    assert answer["parts"]["weights"] == 4 * answer["total_parameters"]
    assert answer["device_lacks"] is None
    file.write_text(json.dumps({"model": str(tmp_path / "gpt2"), "precision": "autocast_bf16"}), encoding="utf-8")
    assert main(["estimate", str(file), "--device", "t4 16 gb"]) == 0
    lacks = json.loads(capsys.readouterr().out)["device_lacks"]
    assert lacks == "T4 16 GB does not compute in bf16; use fp32"


@pytest.mark.parametrize(
    ("config", "given", "word"),
    [
        ({"model_type": "gpt2"}, {}, "config.json"),
        (GPT2 | {"n_embd": -64}, {}, "n_embd -64; it must be a whole number above 0"),
        (GPT2 | {"n_layer": "two"}, {}, "n_layer 'two'"),
        (GPT2 | {"n_head": 5}, {}, "5 attention heads, but no head_dim"),
        (GPT2 | {"num_key_value_heads": 3}, {}, "3 key heads"),
        (GPT2, {"method": {"name": "lora", "r": 4096}}, "r: 4096"),
        (GPT2, {"data": {"max_seq_length": 512}}, "256"),
        (GPT2 | {"model_type": "no_such_kind"}, {}, "no_such_kind"),
    ],
)
def test_what_cannot_be_estimated_is_one_sentence(tmp_path: Path, config: dict, given: dict, word: str) -> None:
    with pytest.raises(TuningError) as caught:
        plan_for({"model": config_folder(tmp_path / "odd", config)} | given)
    assert word in str(caught.value) and "\n" not in caught.value.problems[0].message


def test_a_model_that_cannot_be_traced_falls_back_and_says_why(tmp_path: Path) -> None:
    """An activation that there is not: the sizes can be counted, the library refuses to build it."""
    plan = plan_for({"model": config_folder(tmp_path / "odd", GPT2 | {"activation_function": "nonsense"})})
    figures = estimate(usage_of(plan, make=True))
    assert figures.kind == "approximate" and untraceable(usage_of(plan).workloads[0])
    assert figures.why_approximate is not None and "nonsense" in figures.why_approximate
    assert figures.why_approximate == what_if(usage_of(plan))["why_approximate"] and "\n" not in figures.why_approximate
    whole = estimate(usage_of(plan_for({"model": config_folder(tmp_path / "even", GPT2)}), make=True))
    assert whole.why_approximate is None
    assert figures.high_bytes - figures.low_bytes > whole.high_bytes - whole.low_bytes


def test_a_larger_device_never_turns_a_yes_into_a_no() -> None:
    plan = plan_for({})
    estimate(usage_of(plan, make=True))
    small, large = named_device("RTX 4060 8 GB"), named_device("H200 141 GB")
    assert estimate(usage_of(plan, small)).fits and estimate(usage_of(plan, large)).fits
    assert (
        what_if(usage_of(plan, small))["largest_micro_batch"] <= what_if(usage_of(plan, large))["largest_micro_batch"]
    )


def test_the_route_gives_curves_that_rise_and_meet_the_estimate(tmp_path: Path) -> None:
    service = RunService(tmp_path, InlineExecutor())
    try:
        plan = plan_for({})
        total = estimate(usage_of(plan, make=True)).total_bytes
        client = TestClient(build_app(service, "127.0.0.1", 7860))
        answer = client.post("/fork/memory", json={}).json()
        assert answer["kind"] == "traced" and not answer["pending"]
        assert max(point["bytes"] for point in answer["step"]) == pytest.approx(total, rel=0.02)
        own = answer["rows"]["curves"][0]["tensors"]
        assert own == sorted(own) and own[answer["rows"]["values"].index(4)] == total
        tokens = answer["lengths"]["curves"][0]["tensors"]
        assert tokens == sorted(tokens) and tokens[answer["lengths"]["values"].index(answer["lengths"]["at"])] == total
        refused = client.post("/fork/memory", json={"micro_batch_size": 0})
        assert refused.status_code == 422 and refused.json()["problems"][0]["field"] == "micro_batch_size"
    finally:
        service.close()


def test_the_table_names_what_is_refused_and_is_about_one_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"gradient_checkpointing": True}), encoding="utf-8")
    assert main(["estimate", str(file), "--table"]) == 0
    out = capsys.readouterr().out
    assert "| Prefix tuning |" not in out and out.rstrip().endswith("Feature extraction, Prefix tuning.")
    assert main(["estimate", str(file), "--table", "--devices", "4"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["field"] == "devices" and problem["value"] == 4 and "leave devices out" in problem["message"]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "nonsense"])
def test_a_table_that_comes_while_the_page_is_answered_is_asked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: str
) -> None:
    """Made, or not to be made, between the estimate and the charts: the page comes again, and then has both."""
    model = config_folder(tmp_path / activation, GPT2 | {"activation_function": activation, "n_embd": 80})
    values = values_from_settings(Settings.from_dict({"model": model}).to_dict())
    service = RunService(tmp_path / "home", executor=InlineExecutor())
    service.warm_up().join()

    def then_made(usage: MemoryUsage) -> MemoryEstimate:
        figures = estimate(usage)
        make_table(usage.workloads[0])
        return figures

    try:
        with monkeypatch.context() as between:
            between.setattr("tuning.runs.service.estimate", then_made)
            first = preview_value(service, values)
        assert first["outlook"]["pending"] and "The estimate is approximate." in first["memory"]["note"]
        assert first["outlook"]["kind"] == "approximate"
        last = preview_value(service, values)
        assert not last["outlook"]["pending"]
        assert ("The estimate is traced." if activation == "gelu" else "nonsense") in last["memory"]["note"]
    finally:
        service.close()


def test_a_form_change_computes_nothing_for_the_closed_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts under More about memory took three quarters of a key press; the page asks for them when it opens."""
    values = values_from_settings(Settings.from_dict({"device": "cpu"}).to_dict())
    service = RunService(tmp_path / "home", executor=InlineExecutor())
    try:
        with monkeypatch.context() as closed:
            closed.setattr("tuning.runs.service.what_if", lambda usage: pytest.fail("nobody has opened the panel"))
            shown = preview_value(service, values)
        assert shown["memory"] and set(shown["outlook"]) == {"settings", "device", "kind", "pending"}
        answer = service.what_if(service.preview(shown["outlook"]["settings"], shown["device"]))
        assert answer["device"] == shown["outlook"]["device"] and answer["rows"]["curves"][0]["tensors"]
    finally:
        service.close()
