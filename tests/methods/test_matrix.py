"""Every method on every task it takes: what moves, what the page said would move, equal curves, and what comes out."""

from __future__ import annotations

import gc

import pytest

from support.method_matrix import CLASSES, MATRIX, MatrixJobs, built_for
from support.tiers import one_of_each
from support.tiny_jobs import run, series
from tuning.methods import METHODS, method_named

torch = pytest.importorskip("torch")

BASE_IS_GONE = {"full", "partial", "feature_extraction", "galore"}
"""They change weights of the model itself, so the base is loaded beside them for an answer."""
IDS = [row.id for row in MATRIX]
every = pytest.mark.parametrize("row", MATRIX, ids=IDS)
one_a_method = pytest.mark.parametrize("row", one_of_each(MATRIX, lambda row: row.method["name"]), ids=IDS)
"""In the fast tier one row a method, the others before a release."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return MatrixJobs(tmp_path_factory.mktemp("methods"))


def test_the_matrix_has_every_method() -> None:
    assert {row.method["name"] for row in MATRIX} == {method.name for method in METHODS if method.updates}


@one_a_method
def test_what_was_said_moves_and_nothing_else(world, row) -> None:
    """Also: the counts before Start are torch's, and a second run after this one is not another run."""
    from tuning.training import session

    job = world.of(row, max_steps=3, eval={"every": None})
    before = {name: weight.clone() for name, weight in built_for(job).model.state_dict().items()}
    kept = {}
    real = session.Session._end

    def end(self, built, *rest):  # seen before saving, which may bring the best weights back
        kept["built"] = built
        kept["after"] = {name: weight.detach().clone() for name, weight in built.model.named_parameters()}
        return real(self, built, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Session, "_end", end)
        state, events = run(job)
    assert state == "finished", events[-1].data
    model = kept["built"].model
    wanted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    moved = {name for name, weight in kept["after"].items() if not torch.equal(weight, before[name])}
    assert moved == wanted
    plan = job.plan
    assert plan.value("trainable_parameters") == sum(weight.numel() for weight in kept["built"].trainable)
    parts = method_named(row.method["name"]).parameter_groups(plan.model.shape, plan.settings.method, plan.class_count)
    assert sum(part.parameters for part in parts) == plan.value("total_parameters")
    again = run(world.of(row, max_steps=3, eval={"every": None}))[1]
    assert series(events) == series(again)


@every
def test_the_first_gradient_does_not_depend_on_the_cut(world, row) -> None:
    if row.method.get("layerwise"):
        return  # refused together with accumulation: tests/methods/test_refused.py
    found = [first_gradient(world, row, micro, steps) for micro, steps in ((8, 1), (1, 8))]
    (whole, loss), (cut, other) = found
    assert whole.norm() > 0
    assert float((whole - cut).norm() / whole.norm()) < row.tolerance
    assert abs(loss - other) < 10 * row.tolerance


def first_gradient(world, row, micro, steps):
    from tuning.data import encode_set, open_data
    from tuning.plan.micro_batches import cut, epoch_update_batches
    from tuning.text import TextTokenizer
    from tuning.training.loop import LoopConfig, accumulate

    job = world.of(row, micro_batch_size=micro, gradient_accumulation_steps=steps)
    settings = job.plan.settings
    built = built_for(job)
    with torch.no_grad():  # what starts at zero would hide the gradient of its other half
        generator = torch.Generator().manual_seed(1)
        for weight in built.trainable:
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    data = open_data(settings.data, settings.task, settings.seed)
    rows = encode_set(data.train, TextTokenizer(job.plan.model.path), settings.data, settings.task)
    config = LoopConfig.of(job.plan)
    built.model.train()
    update_batch = epoch_update_batches(len(rows), 0, 0, micro * steps)[0]
    loss = accumulate(built, rows, cut(update_batch, rows.lengths, micro, by_length=True), config, lambda: True)
    return torch.cat([weight.grad.flatten() for weight in built.trainable if weight.grad is not None]), float(loss)


@one_a_method
def test_eval_loss_falls(world, row) -> None:
    state, events = run(world.of(row, max_steps=30, eval={"every": None}))
    losses = series(events, kind="eval")
    assert state == "finished" and losses[-1] < losses[0] - 0.01, losses


def base_as_loaded(world, row):
    """The base model as the method loads it: for QLoRA, in 4 bits."""
    from tuning.methods.qlora import keep_differentiable
    from tuning.training.build import load_base

    settings = world.of(row).plan.settings.method
    options = method_named(row.method["name"]).load_options(settings, "cpu")
    base = load_base(
        str(world.models[row.model]), class_names=None, attention="sdpa", dtype=torch.float32, pad_id=0, options=options
    )
    keep_differentiable(base)
    return base


@every
def test_switched_off_it_is_the_base_exactly(world, row) -> None:
    """Where a method cannot be switched off, it says so."""
    method = method_named(row.method["name"])
    built = built_for(world.of(row))
    with torch.no_grad():
        for weight in built.trainable:
            weight.add_(0.05)
    view = method.base_view(built.model)
    if view is None or row.task == CLASSES:
        gone = row.method["name"] in BASE_IS_GONE or "init" in row.method
        assert gone or row.task == CLASSES
        return
    ids = torch.tensor([[1, 5, 9, 7, 6]])
    base = base_as_loaded(world, row)
    built.model.eval()
    with torch.no_grad():
        apart = built.model(input_ids=ids).logits
        with view:
            assert torch.equal(built.model(input_ids=ids).logits, base.eval()(input_ids=ids).logits)
        assert not torch.equal(apart[:, -1], base(input_ids=ids).logits[:, -1])
    del built
    gc.collect()
