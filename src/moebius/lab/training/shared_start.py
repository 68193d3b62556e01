"""How several processes begin to train one model: with the same rows, the same weights and the same checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from moebius.kit.errors import ArgumentError
from moebius.kit.files import atomic_path
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.processes import Processes, peers


@peers()
def share_start(
    processes: Processes,
    engine: Engine,
    members: Sequence[Member],
    fingerprint: str,
    state: Sequence[Path],
) -> None:
    """Give this process what the first one begins with; alone, nothing.

    Arguments:
        processes: all of them call this.
        engine: its models get the values of the first process's.
        members: the runs, as the engine has them.
        fingerprint: of the data.
        state: the files that the first process may go on from; each process has paths of its own.

    Raises:
        ArgumentError: processes differ in rows, models or settings, or share the experts of a model already.
    """
    if not processes.are_several:
        return
    with processes.agreed():
        for model in engine.models:
            _check_is_whole(model)
    _check_are_equal(processes, engine, members, fingerprint)
    processes.copy_first(engine.tensors().values())
    contents = processes.first([path.read_bytes() if path.exists() else None for path in state])
    for path, content in zip(state, contents, strict=True):
        if processes.is_first:
            continue
        path.unlink(missing_ok=True)
        if content is not None:
            with atomic_path(path, sync=False) as temporary:
                temporary.write_bytes(content)


def _check_is_whole(model: nn.Module) -> None:
    from torch.distributed.tensor import DTensor  # takes a second

    for path, module in model.named_modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if "dispatcher" in vars(module) or any(isinstance(tensor, DTensor) for tensor in tensors):
            rule = "is on several processes in parts, and mb.fit trains models that each process has in full"
            raise ArgumentError(f"model.{path}" if path else "model", rule, type(module).__name__, "a loop of your own")


def _check_are_equal(processes: Processes, engine: Engine, members: Sequence[Member], fingerprint: str) -> None:
    """Check what would make processes wait for each other, or add up what does not belong together."""
    shapes = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in engine.tensors().items()}
    facts: dict[str, Any] = {"data": fingerprint, "model": shapes, "seed": [member.seed for member in members]}
    facts["callbacks"] = [
        (len(each.callbacks.on_epoch), len(each.callbacks.on_step)) if each.callbacks else (0, 0) for each in members
    ]
    for key, value in members[0].settings.model_dump().items():
        if isinstance(value, bool | int | float | str | None):
            facts[key] = value
    everyone = processes.gather(facts)
    for name in facts:
        if any(each[name] != everyone[0][name] for each in everyone):
            rule = "has to be the same in all processes, each of which computes its part of every batch"
            fix = "give each process the same arguments; only the first one's callbacks are called"
            if name == "data":
                fix = "give each process all rows: no DistributedSampler, no part of a file"
            raise ArgumentError(name, rule, "different in some", fix)


def check_statistics(processes: Processes, model: nn.Module) -> None:
    """Refuse batch statistics that each process would take of its own rows.

    Raises:
        ArgumentError: a batch normalisation is in training mode, and is not `nn.SyncBatchNorm`.
    """
    for path, module in model.named_modules() if processes.are_several else ():
        if isinstance(module, _BatchNorm) and module.training and not isinstance(module, nn.SyncBatchNorm):
            rule = "takes the statistics of one process's rows, which depend on how many processes there are"
            fix = "nn.GroupNorm, on GPUs nn.SyncBatchNorm.convert_sync_batchnorm(model), or one process"
            raise ArgumentError(path or "model", rule, type(module).__name__, fix)
