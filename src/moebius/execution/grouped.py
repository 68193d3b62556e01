"""torch's grouped matrix product over sorted rows."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.errors import ArgumentError
from moebius.execution._every import every
from moebius.execution._order import by_expert
from moebius.execution._rowwise import through, why_not_rowwise
from moebius.routing import Routing
from moebius.stack import Stack

# Numbers in 16 bytes of bf16, which the strides of what is multiplied have to be multiples of.
_ALIGNED = 8


def grouped(
    experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Sort the rows by expert and multiply them with `torch.nn.functional.grouped_mm`, one call for each dense layer.

    bf16 alone: for other formats torch falls back to loops, and refuses them where it compiles. Nothing waits for the
    host, and no shape depends on the routing.

    Arguments, Returns: as of `loop`; experts are a `Stack` of dense layers in bf16, or under autocast to it.

    Raises:
        ArgumentError: the experts are something else, or the format is.

    Reference: ours; torch's grouped_mm.
    """
    selection = routing.selection
    if selection is None:
        return every(experts, x, routing)
    why = why_not_grouped(experts, x)
    if why is not None or not isinstance(experts, Stack):
        raise ArgumentError("execution", f"grouped {why}", "grouped", 'execution="auto"')
    order, counts = by_expert(selection.expert_A, selection.kept_A, len(experts))
    layer = _Layer(selection.expert_A[order], selection.kept_A[order].unsqueeze(1), counts.cumsum(0).int())
    values = through(experts.stacked, x[selection.row_A[order]], layer)
    return torch.zeros_like(values).index_copy(0, order, torch.where(layer.kept, values, 0))


def why_not_grouped(experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Tensor) -> str | None:
    """Why these experts cannot be run so on these rows, as the end of a sentence; else None."""
    why = why_not_rowwise(experts, x)
    if why is None and format_of(x) != torch.bfloat16:
        return f"needs bf16, and these rows are {format_of(x)}"
    return why


def format_of(x: Tensor) -> torch.dtype:
    """The number format that products of these rows have: autocast's where it is on."""
    device = x.device.type
    # Autocast leaves float64 as it is.
    cast = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if cast else x.dtype


class _Layer:
    """A dense layer of sorted rows."""

    def __init__(self, expert: Tensor, kept: Tensor, ends: Tensor):
        self.expert, self.kept, self.ends = expert, kept, ends

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        # What lies past the last group is never written: zeros on the way in keep it out of gradients, too.
        y = _Product.apply(torch.where(self.kept, x, 0).bfloat16(), linear.weight.bfloat16(), self.ends)
        assert isinstance(y, Tensor)
        y = torch.where(self.kept, y, 0)
        return y if linear.bias is None else y + linear.bias.bfloat16()[self.expert]


class _Product(torch.autograd.Function):
    """Group by group x Wᵀ, with strides padded to what the kernels take and gradients made contiguous."""

    @staticmethod
    def forward(ctx, x, weight, ends):
        ctx.save_for_backward(x, weight, ends)
        y = F.grouped_mm(_padded(x, 1), _padded(_padded(weight, 1), 2).transpose(1, 2), offs=ends)
        return y[:, : weight.shape[1]]

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,) = gradients
        x, weight, ends = ctx.saved_tensors
        gradient = _padded(gradient.contiguous(), 1)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = F.grouped_mm(gradient, _padded(_padded(weight, 1), 2), offs=ends)[:, : x.shape[1]]
        if ctx.needs_input_grad[1]:
            dweight = F.grouped_mm(gradient.t(), _padded(x, 1), offs=ends)[:, : weight.shape[1], : weight.shape[2]]
        return dx, dweight, None


def _padded(tensor: Tensor, axis: int) -> Tensor:
    missing = -tensor.shape[axis] % _ALIGNED
    if not missing:
        return tensor.contiguous()
    return F.pad(tensor, (*[0, 0] * (tensor.ndim - 1 - axis), 0, missing))
