"""How several processes begin to train one model: with the same rows, the same weights and the same checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from moebius.kit.errors import ArgumentError
from moebius.kit.files import atomic_path
from moebius.lab.training.engine import Engine
from moebius.lab.training.processes import Processes, peers


@peers()
def share_start(
    processes: Processes,
    engine: Engine,
    fingerprint: str,
    state: Sequence[Path],
) -> None:
    """Give this process what the first one begins with; alone, nothing.

    Arguments:
        processes: all of them call this.
        engine: its models get the values of the first process's.
        fingerprint: of the data.
        state: the files that the first process may go on from; each process has paths of its own.

    Raises:
        ArgumentError: the processes do not have the same rows.
    """
    if not processes.are_several:
        return
    fingerprints = processes.gather(fingerprint)
    if len(set(fingerprints)) > 1:
        rule = "has to be the same in all processes, each of which computes its part of every batch"
        fix = "give each process all rows: no DistributedSampler, no part of a file"
        raise ArgumentError("data", rule, f"{len(set(fingerprints))} different data sets", fix)
    processes.copy_first(engine.tensors().values())
    contents = processes.first([path.read_bytes() if path.exists() else None for path in state])
    for path, content in zip(state, contents, strict=True):
        if processes.is_first:
            continue
        path.unlink(missing_ok=True)
        if content is not None:
            with atomic_path(path, sync=False) as temporary:
                temporary.write_bytes(content)


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
