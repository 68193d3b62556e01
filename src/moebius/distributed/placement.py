"""`Placement`: which process of a mesh holds which experts of a pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from moebius.core.stack import Stack
from moebius.kit.errors import MoebiusError


@dataclass(frozen=True)
class Placement:
    """Where the experts of one pool are.

    Arguments:
        mesh: of one dimension: the processes that share the pool.
        counts: how many experts each of them holds, at least 1; the first process holds the first experts.
        rank: of this process among them.
        divisor: what gradients of expert parameters are divided by.
        reads_context: whether a part of some expert reads the rows' context, which then travels with the rows.
        has_mixtures: whether an expert is a mixture or contains some.

    Example:
        >>> placement = Placement(None, counts=(2, 2, 1), rank=1)
        >>> list(placement.experts), placement.owner(4)
        ([2, 3], 2)
    """

    mesh: Any
    counts: tuple[int, ...]
    rank: int
    divisor: int = 1
    reads_context: bool = False
    has_mixtures: bool = False

    @property
    def processes(self) -> int:
        """How many processes share the pool."""
        return len(self.counts)

    @property
    def experts(self) -> range:
        """The numbers of this process's experts."""
        first = sum(self.counts[: self.rank])
        return range(first, first + self.counts[self.rank])

    def owner(self, expert: int) -> int:
        """The process that holds an expert, by its rank in the mesh."""
        return next(rank for rank in range(self.processes) if expert < sum(self.counts[: rank + 1]))

    def split(self, by_expert: Sequence[int]) -> list[list[int]]:
        """Numbers of all experts, as one list for each process."""
        bounds = [sum(self.counts[:rank]) for rank in range(self.processes + 1)]
        return [[*by_expert[begin:end]] for begin, end in pairwise(bounds)]


def expert_counts(experts: int, processes: int, stacked: bool) -> tuple[int, ...]:
    """How many experts each process holds; 0 for a process that would have none.

    Experts of a list are divided as evenly as possible. Those of a stack are divided as torch divides a tensor into
    shards: every process but the last ones has ⌈E / processes⌉.

    Example:
        >>> expert_counts(6, 4, stacked=False), expert_counts(6, 4, stacked=True)
        ((2, 2, 1, 1), (2, 2, 2, 0))
    """
    if stacked:
        most = -(-experts // processes)
        return tuple(max(0, min(most, experts - rank * most)) for rank in range(processes))
    return tuple(experts // processes + (rank < experts % processes) for rank in range(processes))


def local_stack(stack: Stack, experts: int) -> Stack:
    """A stack of this process's experts alone, on its shards of the tensors, for one forward."""
    part = object.__new__(Stack)
    attributes = vars(part)
    attributes.update({name: value for name, value in vars(stack).items() if name != "dispatcher"})
    for table in ("_parameters", "_buffers"):
        attributes[table] = {name: _local_tensor(tensor) for name, tensor in attributes[table].items()}
    attributes["count"] = experts
    return part


def _local_tensor(tensor: Any) -> Tensor | None:
    return None if tensor is None else tensor.to_local()


def mark_owned(experts: Iterable[nn.Module], processes: int) -> None:
    """Tell norms that the parameters of a list's experts are on this process alone, of so many."""
    for parameter in (parameter for expert in experts for parameter in expert.parameters()):
        parameter.owner_processes = processes  # type: ignore[attr-defined]


def copies_of(tensor: Tensor, processes: int) -> float:
    """How many of all processes hold the same piece of a parameter.

    Raises:
        MoebiusError: a tensor is split in a way that holds parts of a sum.
    """
    if not isinstance(tensor, DTensor):
        return processes / getattr(tensor, "owner_processes", 1)
    shards = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
        if placement.is_partial():
            raise MoebiusError(f"a parameter is placed as {placement}, whose values are sums", "Shard or Replicate")
        shards *= 1 if placement.is_replicate() else size
    return processes / shards
