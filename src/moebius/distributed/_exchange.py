"""Rows of any number format between processes, with gradients that travel back."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def move_rows(values: Tensor, send: Sequence[int], receive: Sequence[int], group: Any) -> Tensor:
    """The rows that all processes have sent to this one, process after process; without a gradient.

    Rows move as bytes: so gloo and NCCL take every number format.

    Arguments:
        values: rows (sum(send), …), those for the first process first.
        send, receive: how many rows go to each process, and come from each.
        group: of the processes.
    """
    values = values.detach().contiguous()
    received = values.new_empty(sum(receive), *values.shape[1:])
    width = prod(values.shape[1:])
    if width:
        source, target = (tensor.view(len(tensor), width).view(torch.uint8) for tensor in (values, received))
        dist.all_to_all_single(target, source, list(receive), list(send), group)
    return received


class Exchange(torch.autograd.Function):
    """`move_rows` whose backward moves the gradients back, times a factor; it also passes a token on.

    The saved token is what activation checkpointing needs: it repeats a block up to the last tensor that was saved, and
    this must be after the same exchange in all processes.
    """

    @staticmethod
    def forward(ctx, values, token, send, receive, group, factor):
        ctx.save_for_backward(token)
        ctx.route = (send, receive, group, factor)
        return move_rows(values, send, receive, group), token.clone()

    @staticmethod
    def backward(ctx, *gradients):
        gradient, token_gradient = gradients
        _ = ctx.saved_tensors
        send, receive, group, factor = ctx.route
        moved, token_gradient = Exchange.apply(gradient, token_gradient, receive, send, group, factor)
        return moved if factor == 1 else moved * factor, token_gradient, None, None, None, None
