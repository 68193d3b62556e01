"""How several processes begin to train one model: with the same rows, the same weights and the same checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from moebius.kit.errors import ArgumentError
from moebius.kit.files import atomic_path
from moebius.lab.data.split import Dataset
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.metrics import Metric
from moebius.lab.training.mixture_parts import expert_pools, mixture_layers
from moebius.lab.training.processes import Processes, peers
from moebius.lab.training.settings import Settings
from moebius.lab.training.shared_facts import check_equal_facts
from moebius.tasks._task import Task


@peers()
def share_start(
    processes: Processes,
    engine: Engine,
    members: Sequence[Member],
    data: Dataset,
    task: Task,
    metrics: Mapping[str, Metric],
    state: Sequence[Path],
) -> None:
    """Give this process what the first one begins with; alone, nothing.

    Arguments:
        processes: all of them call this.
        engine: its models get the values of the first process's.
        members: the runs, as the engine has them.
        data, task, metrics: what all of them learn from and what of.
        state: the files that the first process may go on from; each process has paths of its own.

    Raises:
        ArgumentError: processes differ in rows, models or settings, or there are more of them than rows of a batch.
    """
    if not processes.are_several:
        return
    check_equal_facts(processes, engine, members, data, task, metrics)
    check_count(processes.count, members[0].settings)
    processes.copy_first(engine.tensors().values())
    contents = processes.first([path.read_bytes() if path.exists() else None for path in state])
    for path, content in zip(state, contents, strict=True):
        if processes.is_first:
            continue
        path.unlink(missing_ok=True)
        if content is not None:
            with atomic_path(path, sync=False) as temporary:
                temporary.write_bytes(content)


def check_count(count: int, settings: Settings) -> None:
    """Check that every one of `count` processes can have rows of a batch."""
    if count > settings.batch_size:
        rule = f"has too few rows for {count} processes, each of which computes a part of every batch"
        raise ArgumentError("batch_size", rule, settings.batch_size, f"{settings.batch_size} processes, or fewer")


def check_is_whole(model: nn.Module) -> None:
    """Refuse a model of which this process has a part.

    Raises:
        ArgumentError: FSDP2 or `mb.distributed` has shared it among processes.
    """
    if not dist.is_available() or not dist.is_initialized():
        return
    from torch.distributed.tensor import DTensor  # takes a second

    for path, module in model.named_modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if "dispatcher" in vars(module) or any(isinstance(tensor, DTensor) for tensor in tensors):
            rule = "is on several processes in parts, and mb.fit trains models that each process has in full"
            fix = "fit the whole model (mb.fit divides batches), or a loop of your own with mb.distributed"
            raise ArgumentError(f"model.{path}" if path else "model", rule, type(module).__name__, fix)


def check_statistics(processes: Processes, model: nn.Module) -> None:
    """Refuse batch statistics that each process would take of its own rows.

    Raises:
        ArgumentError: a batch normalisation is in training mode, and is not `nn.SyncBatchNorm`, or is inside an expert.
    """
    if not processes.are_several:
        return
    pools = [pool for layer in mixture_layers(model) for pool in expert_pools(layer)]
    inside_experts = {module for pool in pools for module in pool.modules()}
    for path, module in model.named_modules():
        if not (isinstance(module, _BatchNorm) and module.training):
            continue
        if not isinstance(module, nn.SyncBatchNorm):
            rule = "takes the statistics of one process's rows, which depend on how many processes there are"
            fix = "nn.GroupNorm, on GPUs nn.SyncBatchNorm.convert_sync_batchnorm(model), or one process"
            raise ArgumentError(path or "model", rule, type(module).__name__, fix)
        if module in inside_experts:
            rule = "waits for all processes, and an expert without rows in one of them does not run there"
            raise ArgumentError(path, rule, type(module).__name__, "nn.GroupNorm inside experts, or one process")
