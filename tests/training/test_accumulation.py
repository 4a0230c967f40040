"""Promise 2: equal settings give equal curves, however an update batch is cut into micro-batches.

Gradients of the first update are compared directly (Adam hides a wrong factor), then losses over 20 updates.
"""

from __future__ import annotations

import pytest

from support.tiers import one_of_each
from support.tiny_jobs import TinyJobs, run, series

torch = pytest.importorskip("torch")

CUTS = [(8, 1), (4, 2), (2, 4), (1, 8)]
KINDS = [
    {"method": {"name": "full"}},
    {"method": {"name": "lora", "r": 4}},
    {"task": "sequence_classification", "method": {"name": "full"}},
    {"task": "sequence_classification", "method": {"name": "lora", "r": 4}},
]
NAMES = ["causal-full", "causal-lora", "classes-full", "classes-lora"]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return TinyJobs(tmp_path_factory.mktemp("jobs"))


def first_gradient(jobs: TinyJobs, micro: int, steps: int, **changes):
    """The gradient of the first update batch, before clipping and the optimizer."""
    from tuning.data import encode_set, open_data
    from tuning.plan.micro_batches import cut, epoch_update_batches
    from tuning.text import TextTokenizer
    from tuning.training.build import build, own_random_state
    from tuning.training.loop import LoopConfig, accumulate

    plan = jobs.job(micro_batch_size=micro, gradient_accumulation_steps=steps, **changes).plan
    settings = plan.settings
    with own_random_state(settings.seed, torch.device("cpu")):
        data = open_data(settings.data, settings.task, settings.seed)
        rows = encode_set(data.train, TextTokenizer(plan.model.path), settings.data, settings.task)
        labels = data.label_names if plan.class_count else None
        built = build(settings, plan.model.path, labels, 1e-3, 0)
    if settings.method.name == "lora":  # a zero second matrix would hide the gradient of the first
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for name, weight in built.model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    built.model.train()
    config = LoopConfig.of(plan)
    update_batch = epoch_update_batches(len(rows), 0, 0, micro * steps)[0]
    assert len({len(rows[index].ids) for index in update_batch}) > 3, "rows must be of unequal length"
    loss = accumulate(built, rows, cut(update_batch, rows.lengths, micro, by_length=True), config, lambda: True)
    assert loss is not None
    return torch.cat([weight.grad.flatten() for weight in built.trainable if weight.grad is not None]), float(loss)


def distance(a, b) -> float:
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("changes", KINDS, ids=NAMES)
def test_first_gradient_does_not_depend_on_the_cut(jobs, changes):
    whole, loss = first_gradient(jobs, 8, 1, **changes)
    for micro, steps in CUTS[1:]:
        cut, other = first_gradient(jobs, micro, steps, **changes)
        assert distance(whole, cut) < 2e-6, (micro, steps)
        assert abs(loss - other) < 1e-5


@pytest.mark.parametrize("reduction, least", [("micro_batch_mean", 1e-2), ("sum", 1.0)])
def test_the_wrong_siblings_are_measurably_wrong(jobs, reduction, least):
    right, _ = first_gradient(jobs, 8, 1)
    wrong, _ = first_gradient(jobs, 1, 8, loss_reduction=reduction)
    assert distance(right, wrong) > least


@pytest.mark.parametrize("changes", one_of_each(KINDS, lambda changes: changes.get("task")), ids=NAMES)
def test_twenty_adamw_losses_agree(jobs, changes):
    curves = []
    for micro, steps in CUTS:
        job = jobs.job(
            micro_batch_size=micro, gradient_accumulation_steps=steps, max_steps=20, eval={"every": None}, **changes
        )
        state, events = run(job)
        assert state == "finished"
        curves.append(series(events))
    assert len(curves[0]) == 20 and len(set(curves[0])) > 10
    for curve in curves[1:]:
        assert max(abs(a - b) for a, b in zip(curves[0], curve, strict=True)) < 1e-5


def test_plain_sgd_without_clipping_agrees_in_loss_and_gradient_norm(jobs):
    """Adam and clipping hide a wrong factor; plain SGD does not."""
    curves = []
    for micro, steps in ((8, 1), (1, 8)):
        job = jobs.job(
            micro_batch_size=micro,
            gradient_accumulation_steps=steps,
            max_steps=20,
            optimizer={"name": "sgd", "learning_rate": 0.05, "max_grad_norm": None},
        )
        events = run(job)[1]
        curves.append((series(events), series(events, "grad_norm")))
    for curve, other_curve in zip(*curves, strict=True):
        assert max(abs(a - b) for a, b in zip(curve, other_curve, strict=True)) < 1e-4


def test_last_partial_window_is_flushed_and_divided_by_its_own_count(jobs):
    """60 rows in update batches of 16: the fourth update has 12 rows, however they are cut."""
    curves, counts = [], []
    for micro, steps in ((16, 1), (3, 5), (15, 1), (5, 3)):
        job = jobs.job(
            micro_batch_size=micro,
            gradient_accumulation_steps=steps,
            max_steps=None,
            num_epochs=1,
            data={"train_rows": 52},
        )
        events = run(job)[1]
        curves.append(series(events))
        counts.append(series(events, "examples"))
    assert counts[0] == [16, 32, 48, 52]
    assert counts[1] == counts[2] == counts[3] == [15, 30, 45, 52]
    for curve in curves[2:]:
        assert max(abs(a - b) for a, b in zip(curves[1], curve, strict=True)) < 1e-5


def test_rows_of_an_update_follow_from_seed_epoch_and_effective_batch():
    from tuning.plan.micro_batches import epoch_update_batches

    update_batches = epoch_update_batches(50, 1, 0, 8)
    assert sorted(index for update_batch in update_batches for index in update_batch) == list(range(50))
    assert [len(update_batch) for update_batch in update_batches] == [8] * 6 + [2]
    assert update_batches == epoch_update_batches(50, 1, 0, 8)
    assert update_batches != epoch_update_batches(50, 1, 1, 8) and update_batches != epoch_update_batches(50, 2, 0, 8)


def test_cutting_by_length_keeps_the_rows_of_the_window():
    from tuning.plan.micro_batches import cut

    lengths = [3, 9, 1, 7, 5, 2]
    micro_batches = cut([5, 1, 3, 0], lengths, 2, by_length=True)
    assert micro_batches == [[1, 3], [0, 5]]
    assert cut([5, 1, 3, 0], lengths, 2, by_length=False) == [[5, 1], [3, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(jobs, attention):
    """A packed micro-batch gives the loss of the padded one, row by row."""
    from tuning.text import EncodedRow
    from tuning.training.batches import collate
    from tuning.training.build import load_base
    from tuning.training.loss import batch_logits, sum_loss

    model = load_base(str(jobs.model), class_names=None, attention=attention, dtype=torch.float32, pad_id=0).eval()
    rows = [
        EncodedRow(ids=[1, *range(5, 5 + n), 2], trained=[False] + [True] * (n + 1), label=None, cut=False)
        for n in (3, 11, 6)
    ]
    losses = []
    for packing in (False, True):
        batch = collate(rows, pad_id=0, classes=False, packing=packing, device=torch.device("cpu"))
        with torch.no_grad():
            losses.append(float(sum_loss(batch_logits(model, batch, classes=False), batch)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.slow
def test_a_packed_run_is_the_padded_run(jobs):
    """Twenty updates: padded, packed, and packed in smaller micro-batches, have the same losses."""
    curves = []
    for packing, micro, steps in ((False, 8, 1), (True, 8, 1), (True, 2, 4)):
        job = jobs.job(
            micro_batch_size=micro, gradient_accumulation_steps=steps, max_steps=20, data={"packing": packing}
        )
        curves.append(series(run(job)[1]))
    for curve in curves[1:]:
        assert max(abs(a - b) for a, b in zip(curves[0], curve, strict=True)) < 1e-4


def test_loss_is_that_of_the_library_on_one_row(jobs):
    from tuning.text import EncodedRow
    from tuning.training.batches import collate
    from tuning.training.build import load_base
    from tuning.training.loss import batch_logits, sum_loss

    model = load_base(str(jobs.model), class_names=None, attention="sdpa", dtype=torch.float32, pad_id=0).eval()
    row = EncodedRow(ids=[1, 5, 6, 7, 8, 2], trained=[False, False, False, True, True, True], label=None, cut=False)
    batch = collate([row], pad_id=0, classes=False, packing=False, device=torch.device("cpu"))
    with torch.no_grad():
        logits = batch_logits(model, batch, classes=False)
        labels = torch.tensor([[-100, -100, -100, 7, 8, 2]])
        theirs = model(input_ids=torch.tensor([row.ids]), labels=labels).loss
    assert logits.shape[0] == 3, "logits at label places only"
    assert float(sum_loss(logits, batch)) / 3 == pytest.approx(float(theirs), abs=1e-5)
