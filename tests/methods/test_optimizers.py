"""Every optimizer learns, resumes from a checkpoint as if nothing had been, and keeps the state its record names."""

from __future__ import annotations

import pytest

from support.method_matrix import MatrixJobs, Row
from support.tiers import first_only
from support.tiny_jobs import run, series
from tuning.settings.optimizers import OPTIMIZERS, optimizer_named
from tuning.settings.schema import OptimizerSettings, choices
from tuning.training.job import Commands

torch = pytest.importorskip("torch")

FULL = Row(method={"name": "full"})
GALORE = Row(method={"name": "galore", "rank": 4, "update_gap": 2})
CASES = [(name, FULL) for name in choices("optimizer.name")] + [("adamw", GALORE)]
every = pytest.mark.parametrize(
    ("name", "row"), first_only(CASES), ids=[f"{name}-{row.method['name']}" for name, row in CASES]
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return MatrixJobs(tmp_path_factory.mktemp("optimizers"))


def test_settings_records_and_makers_are_of_the_same_optimizers() -> None:
    from tuning.training.optimizers import MAKERS

    names = {optimizer.name for optimizer in OPTIMIZERS}
    assert names == set(choices("optimizer.name")) == set(MAKERS) and len(names) == len(OPTIMIZERS)


@pytest.mark.parametrize("name", choices("optimizer.name"))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_keeps_as_much_of_a_weight_as_its_record_says(name: str, momentum: float) -> None:
    """Measured on a matrix of the size of a small layer, in values of four bytes."""
    from tuning.training.optimizers import make_optimizer

    weight = torch.nn.Parameter(torch.ones(256, 256))
    settings = OptimizerSettings(name=name, momentum=momentum)
    optimizer = make_optimizer(settings, [weight], 1e-3)
    weight.grad = torch.full_like(weight, 0.1)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    stored = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in kept if value.numel() > 1
    }
    measured = sum(stored.values()) / 4 / weight.numel()
    expected = optimizer_named(name).values_per_weight(settings)
    assert abs(measured - expected) <= 0.1, (measured, expected)


@every
def test_it_learns_at_its_default_rate(world, name, row) -> None:
    momentum = 0.9 if name == "sgd" else 0.0
    state, events = run(
        world.of(row, max_steps=25, eval={"every": None}, optimizer={"name": name, "momentum": momentum})
    )
    losses = series(events, kind="eval")
    assert state == "finished" and losses[-1] < losses[0] - 0.05, losses


@every
def test_a_stopped_run_goes_on_as_if_it_had_not_been(world, tmp_path, name, row) -> None:
    changes = {
        "max_steps": 6,
        "save": {"every": 3},
        "eval": {"every": None},
        "optimizer": {"name": name, "momentum": 0.9 if name == "sgd" else 0.0},
    }
    whole = series(run(world.of(row, **changes))[1])
    job = world.of(row, **changes)
    commands = Commands()

    def stop(event) -> None:
        if event.kind == "step" and event.data["step"] == 4:
            commands.stop()

    assert run(job, commands, stop)[0] == "cancelled"
    from dataclasses import replace

    later = series(run(replace(job, attempt=2))[1])
    assert later == whole[4:]


def test_galore_is_adam_where_nothing_is_cut_off() -> None:
    """With all directions kept, scale 1 and directions never renewed, each step is an orthogonal turn away from Adam's:
    the gradient seen in the projector's directions, updated there by Adam, and turned back."""
    from tuning.methods.torch_galore import GaLoreAdamW, directions, down, up

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 4))
    start, gradients = weight.detach().clone(), [torch.randn(6, 4) for _ in range(5)]
    galore = GaLoreAdamW(
        [{"params": [weight], "rank": 4, "update_gap": 100, "scale": 1.0}], 1e-2, (0.9, 0.999), 1e-8, False
    )
    turned = directions(gradients[0], 4)
    low = torch.nn.Parameter(down(start, turned))
    adam = torch.optim.AdamW([low], 1e-2, weight_decay=0.0)
    for gradient in gradients:
        weight.grad, low.grad = gradient.clone(), down(gradient, turned)
        galore.step()
        adam.step()
    assert torch.allclose(weight, up(low, turned, weight.shape), atol=1e-6)


def test_galores_state_has_the_size_that_was_said(world) -> None:
    from support.method_matrix import built_for
    from tuning.methods import method_named

    job = world.of(GALORE)
    built = built_for(job)
    for weight in built.trainable:
        weight.grad = torch.randn_like(weight)
    built.optimizer.step()
    states = built.optimizer.state.values()
    kept = sum(value.numel() for state in states for key, value in state.items() if key != "step")
    said = method_named("galore").optimizer_values(job.plan.model.shape, job.plan.settings.method, 0, 2)
    assert kept == said < 2 * job.plan.value("trainable_parameters")
