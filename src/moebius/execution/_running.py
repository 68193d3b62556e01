"""What executions that call experts one after another share."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from moebius.errors import ArgumentError
from moebius.frame import current, entered


def run_one(number: int, expert: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """What expert `number` says of the rows with these numbers, of which a mixture inside it is told.

    Raises:
        ArgumentError: it has batch normalisation, and gets a single row to train on.
    """
    try:
        with entered(current().at(rows)):
            return expert(x)
    except ValueError as error:
        if len(x) != 1 or "more than 1 value per channel" not in str(error):
            raise
        rule = "batch normalisation needs more than one row to train on, and the router sent it"
        raise ArgumentError(f"experts.{number}", rule, 1, "a larger batch, or nn.GroupNorm in its place") from error


def with_zero_gradients(values: Tensor, idle: Iterable[nn.Module]) -> Tensor:
    """`values`, in whose backward pass experts that no row chose get gradients of zero, not None.

    An optimizer treats the two differently, and data-parallel training waits for every parameter.
    """
    if not torch.is_grad_enabled():
        return values
    trained = [parameter for expert in idle for parameter in expert.parameters() if parameter.requires_grad]
    return _WithZeroGradients.apply(values, *trained) if trained else values


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, *parameters):
        ctx.save_for_backward(*parameters)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0], *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)
