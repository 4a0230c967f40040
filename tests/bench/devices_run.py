"""One update as one of several devices makes it, measured: `python -m bench.devices_run`.

It reads JSON lines from standard input: settings, how the work is shared out, among how many devices. It answers each
with the most bytes that tensors took on one of them. The sharing is torch's own (`DistributedDataParallel`,
`fully_shard`) around our loop; the other devices are a process group that answers at once and exchanges nothing, so
every tensor of this device is really allocated and computed, though its numbers mean nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.forks import each_in_a_fork
from tuning.bench.measure import training_rows
from tuning.memory.multi_device import DATA_PARALLEL
from tuning.plan.plan import Plan, plan_for


def run_update(settings: dict[str, Any], way: str, count: int) -> int:
    """Bytes of tensors at the peak of the second update, when the optimizer's state exists."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from tuning.training.build import build
    from tuning.training.loop import LoopConfig, Progress, train
    from tuning.training.probes import allocations, peak_of

    plan = plan_for(settings)
    distributed.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        with allocations() as lasting:
            built = build(plan.settings, plan.model.path, plan.data.label_names, plan.value("learning_rate"), 1)
            built = (_copied if way == DATA_PARALLEL else _sharded)(built, plan)
            updates = train(built, training_rows(plan), LoopConfig.of(plan), Progress(), lambda: True)
            next(updates)
        with allocations() as passing:
            next(updates)
    finally:
        distributed.destroy_process_group()
    return sum(lasting) + peak_of(passing)


def _copied(built: Any, plan: Plan) -> Any:
    """A whole copy on each device. Our loop asks the model for its output layer, which the wrapper does not hand on."""
    import torch
    from torch import distributed, futures
    from torch.nn.parallel import DistributedDataParallel

    def answered(state: Any, bucket: Any) -> Any:
        future: Any = futures.Future()
        future.set_result(bucket.buffer())
        return future

    answered.__annotations__ = {"bucket": distributed.GradBucket, "return": futures.Future[torch.Tensor]}
    model: Any = DistributedDataParallel(built.model)
    model.register_comm_hook(None, answered)
    model.get_output_embeddings = built.model.get_output_embeddings
    return replace(built, model=model)


def _sharded(built: Any, plan: Plan) -> Any:
    """An n-th of everything on each: every block and the whole model as units."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from tuning.training.optimizers import make_optimizer

    mesh = init_device_mesh("cpu", (_devices(),))
    for block in _blocks(built.model, plan.model.shape.num_layers):
        fully_shard(block, mesh=mesh)
    fully_shard(built.model, mesh=mesh)
    trainable = [weight for weight in built.model.parameters() if weight.requires_grad]
    optimizer = make_optimizer(plan.settings.optimizer, trainable, plan.value("learning_rate"))
    return replace(built, trainable=trainable, optimizer=optimizer)


def _devices() -> int:
    from torch import distributed

    return distributed.get_world_size()


def _blocks(model: Any, layers: int) -> list[Any]:
    from torch import nn

    return list(
        next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == layers)
    )


def main() -> None:
    from tuning.training.kernel_downloads import block_kernel_downloads

    block_kernel_downloads()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    each_in_a_fork(lambda case: {"peak": run_update(**case)})


if __name__ == "__main__":
    main()
