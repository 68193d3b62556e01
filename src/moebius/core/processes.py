"""Sums and maxima over the processes of a distributed training, each of which sees other rows."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from moebius.core.row_context import ThreadValue

_computes_alone = ThreadValue(False)


def is_distributed() -> bool:
    """Whether this process trains together with others; not so inside `alone`."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and not _computes_alone.value


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process computes by itself: nothing waits for the others, and sums are of its rows."""
    before = _computes_alone.value
    _computes_alone.value = True
    try:
        yield
    finally:
        _computes_alone.value = before


def sum_over_processes(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The sum of all processes' `values`, with a gradient; every process has to call it.

    Each process then computes the same loss of the sum, and backward sums the processes' gradients. Data-parallel
    training averages the parameters' gradients over processes; the average is the gradient of that one loss.
    """
    return _Sum.apply(values) if is_distributed() else values  # type: ignore[return-value]


def maximum_over_processes(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The elementwise maximum of all processes' `values`, without a gradient; every process has to call it."""
    if not is_distributed():
        return values
    maximum = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return maximum


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *gradients):
        return _Sum.apply(gradients[0])
