"""Published GPU figures: the data are what was printed, the arithmetic beside them is right, and one source is met."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.published import fitted, lines_of, report
from bench.published_line import ADDED, Line
from bench.published_peaks import BERT, LITGPT, MIB, PEFT, SOURCES, Peak, Source
from tuning.memory.tracing.table import Block, Point, Table
from tuning.memory.workload import Workload


def line(source: Source, peak: Peak, per_token: float = 0.0) -> Line:
    """A line whose table is made by hand: a thousand bytes, and so many for each token of the micro-batch."""
    block = Block(monomials=["1", "BS"], points=[Point(place="0.loss", bytes=[[1000.0, per_token]])], line=[])
    table = Table(layers=1, window=None, blocks={"one": block, "many": block}, trainable=(0.0, 0.0), total=(0.0, 0.0))
    workload = Workload(config={}, settings={"method": {}}, class_count=source.labels, padded=False)
    return Line(source=source, peak=peak, workload=workload, memory=table)


def test_trained_weights_are_counted_as_published() -> None:
    published = [(source, peak) for source in SOURCES for peak in source.peaks if peak.trained]
    assert len(published) == len(PEFT.peaks) + len(LITGPT.peaks)
    wrong = {peak.what: (line(source, peak).trained(), peak.trained) for source, peak in published}
    assert not {what: pair for what, pair in wrong.items() if pair[0] != pair[1]}


def test_every_figure_is_more_than_the_weights_and_less_than_the_card() -> None:
    for source in SOURCES:
        for peak in source.peaks:
            run = line(source, peak)
            each = 0.5 if peak.method["name"] == "qlora" else {"bf16": 2, "fp32": 4}[source.base]
            assert each * run.model.body_parameters < peak.bytes - source.context < 44.4 * 2**30, peak.what
            assert 0 <= peak.between < peak.bytes


def test_what_is_added_is_the_arithmetic_it_says() -> None:
    lora = line(PEFT, PEFT.peaks[0])
    assert ADDED["cache"][1](lora, 700) == 4 * 700 * 28 * 2 * 8 * 128 * 2
    prefix = line(PEFT, next(peak for peak in PEFT.peaks if peak.what.startswith("prefix 200")))
    assert ADDED["cache"][1](prefix, 700) == 4 * 900 * 28 * 2 * 8 * 128 * 2
    vanilla, _, recompute = (line(BERT, peak) for peak in BERT.peaks[:3])
    assert ADDED["softmax"][1](vanilla, 512) == 24 * 4 * 16 * 512 * 512 * 4 == 1536 * MIB
    assert ADDED["softmax"][1](recompute, 512) == 16 * MIB
    whole, _, packed = (line(LITGPT, peak) for peak in LITGPT.peaks[:3])
    assert ADDED["litgpt blocks"][1](whole, 1304) == 7 * 1304 * 32 * 4096
    assert ADDED["litgpt nf4"][1](whole, 1304) == 0 < ADDED["litgpt nf4"][1](packed, 1304)


def test_one_length_is_fitted_on_the_first_run_and_the_report_says_so() -> None:
    peak = replace(PEFT.peaks[0], bytes=1000 + 4 * 600 * (50 + 28 * 2 * 8 * 128 * 2), between=0)
    lines = [line(PEFT, peak, 50.0), line(PEFT, replace(peak, bytes=2 * peak.bytes, what="another"), 50.0)]
    lines[1] = replace(lines[1], workload=replace(lines[1].workload, class_count=1))
    assert fitted(lines[0].expected, peak.bytes, PEFT.limit) == 600
    text = report(lines)
    assert "600 tokens make the first run come out" in text
    assert "| another | 4 x 600 |" in text and "| -50.0 | no |" in text
    assert f"ours, the length fitted on {peak.what} | 1 | 50.0 | 50.0 |" in text


@pytest.mark.slow
def test_runs_on_a_card_are_met() -> None:
    """One length is fitted on the first run; the others' peaks and bytes between updates come out."""
    names = ("LoRA r32 q, v, torch 2.7.1", "LoRA r10 feed-forward", "p-tuning 20", "IA3, torch 2.7.1")
    source = replace(PEFT, peaks=[peak for peak in PEFT.peaks if peak.what in names])
    lines = lines_of(source)
    length = fitted(lines[0].expected, lines[0].peak.bytes, source.limit)
    mean = fitted(lines[0].between, lines[0].peak.between, source.limit)
    for run in lines:
        assert run.inside(length), run.peak.what
        assert run.expected(length) == pytest.approx(run.peak.bytes, rel=0.03), run.peak.what
        assert run.between(mean) == pytest.approx(run.peak.between, rel=0.002), run.peak.what
