"""Sums and maxima over the processes of a distributed training, each of which sees other rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from moebius.kit.errors import LostProcessError


class Company(Enum):
    """How this process trains.

    LOOP: beside others where a process group has begun, in a loop that is not moebius's.
    SHARED: beside others in `mb.fit`, where each computes its rows of every batch, also where these are none.
    ALONE: by itself, whatever process group has begun.
    """

    LOOP = "loop"
    SHARED = "shared"
    ALONE = "alone"


class _State:
    # Of the process, not of a thread: backward has threads of its own.
    company = Company.LOOP


def is_distributed() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and not trains_alone()


def trains_alone() -> bool:
    """Whether this process takes no part in what others train, inside `company(Company.ALONE)`."""
    return _State.company is Company.ALONE


def shares_batches() -> bool:
    """Whether this process computes its rows of the batches of a training that `mb.fit` does in several processes."""
    return is_distributed() and _State.company is Company.SHARED


@contextmanager
def company(value: Company) -> Iterator[None]:
    """Inside the block this process trains in this company."""
    before, _State.company = _State.company, value
    try:
        yield
    finally:
        _State.company = before


@contextmanager
def exchange() -> Iterator[None]:
    """A block that does nothing but exchange values with the other processes.

    torch raises errors of many kinds where that fails, over gloo a plain RuntimeError: what they have in common is the
    place that they come from.

    Raises:
        LostProcessError: it fails.
    """
    try:
        yield
    except (RuntimeError, EOFError) as error:
        if isinstance(error, LostProcessError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        rule = "a process that trains the same model has ended, or takes no part"
        raise LostProcessError(f"{rule} ({reason})") from error


def sum_over_processes(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The sum of all processes' `values`, with a gradient; every process has to call it.

    Each process then computes the same loss of the sum, and backward sums the processes' gradients. Data-parallel
    training averages the parameters' gradients over processes; the average is the gradient of that one loss.

    Raises:
        LostProcessError: another process has ended, or does not call it.
    """
    return _Sum.apply(values) if is_distributed() else values  # type: ignore[return-value]


def maximum_over_processes(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The elementwise maximum of all processes' `values`, without a gradient; every process has to call it.

    Raises:
        LostProcessError: another process has ended, or does not call it.
    """
    if not is_distributed():
        return values
    maximum = values.detach().clone(memory_format=torch.contiguous_format)
    with exchange():
        dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return maximum


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        total = values.clone(memory_format=torch.contiguous_format)
        with exchange():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *gradients):
        return _Sum.apply(gradients[0])
