"""The bench of what an estimate costs: tables are made in a child process and in a cache of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bench.estimate import MODELS, WAYS, estimate_times, made, own_cache, plans, report, written
from tuning.core.files import user_cache
from tuning.memory.workload import workload_of


def test_the_models_are_as_large_as_their_names_say(tmp_path: Path) -> None:
    counts = {
        "Llama 3.1 8B": 8.03e9,
        "Llama 3.1 70B": 70.6e9,
        "Qwen2.5 32B": 32.8e9,
        "Qwen3 8B": 8.19e9,
        "Gemma 2 27B": 27.2e9,
        "Gemma 3 1B": 1.0e9,
        "Gemma 3 27B": 27.0e9,
        "Mistral 7B": 7.24e9,
        "Phi-3 medium": 14.0e9,
        "OLMo 2 32B": 32.2e9,
        "GPT-2 XL": 1.56e9,
    }
    assert list(counts) == list(MODELS)
    for name, config in MODELS.items():
        plan = plans(written(tmp_path / name, config), {"full": WAYS["full"]})[0]
        assert plan.value("total_parameters") == pytest.approx(counts[name], rel=0.02), name


def test_a_cache_of_its_own_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (str(tmp_path / "mine"), None):
        if before is None:
            monkeypatch.delenv("TUNING_FORK_CACHE")
        else:
            monkeypatch.setenv("TUNING_FORK_CACHE", before)
        with own_cache(tmp_path / "its"):
            assert user_cache("memory") == tmp_path / "its" / "memory"
        assert os.environ.get("TUNING_FORK_CACHE") == before


def test_the_report_ends_with_the_worst() -> None:
    text = report({"one": [0.5, 1.0, 2.0, 3.0], "other": [0.6, 0.9, 2.5, 2.75]})
    assert text.splitlines()[-1] == "| worst (at most 5) | 0.60 | 1.00 | 2.50 | 3.00 |"


@pytest.mark.slow
def test_tables_and_estimates_are_timed(tmp_path: Path) -> None:
    """A small model through all of it, and a config that cannot be built is said to be none."""
    small = {"model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 2, "vocab_size": 512, "n_positions": 256}
    with own_cache(tmp_path / "cache"):
        some = plans(written(tmp_path / "small", small), {"LoRA": WAYS["LoRA"]}, (16, 32))
        seconds = made([workload_of(some[0])])
        assert len(seconds) == 1 and 0 < seconds[0] < 30
        text = estimate_times(some, 50)
    assert "| it fits | 50 |" in text and "| the list alone | 50 |" in text
    folder = written(tmp_path / "broken", small | {"activation_function": "nonsense"})
    broken = workload_of(plans(folder, {"full": WAYS["full"]})[0])
    with pytest.raises(RuntimeError, match="gpt2 full"):
        made([broken])


def test_the_help_of_bench_names_every_one(capsys: pytest.CaptureFixture[str]) -> None:
    from tuning.bench.tables import BENCHES, EVIDENCE
    from tuning.cli import main

    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert {*BENCHES, *EVIDENCE} <= words


def test_evidence_is_found_in_a_checkout() -> None:
    from tuning.bench.tables import EVIDENCE, _evidence

    for name, function in EVIDENCE.items():
        module, _, attribute = function.partition(".")
        evidence = _evidence(name)
        assert (evidence.__module__, evidence.__name__) == (f"bench.{module}", attribute)


def test_without_a_checkout_evidence_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in an installed package, which has no tests beside it."""
    from tuning.bench import tables
    from tuning.cli import main

    monkeypatch.setattr(tables, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(tables, "BENCHES", {"loop": lambda repeats: "the loop's table"})
    assert main(["bench", "published"]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.startswith("published needs a checkout of the repository")
    assert main(["bench"]) == 0
    out = capsys.readouterr()
    assert out.out == "the loop's table\n" and out.err.startswith("memory, devices, data need a checkout")
    assert main(["bench", "nonsense"]) == 2 and "'nonsense'" in capsys.readouterr().err
