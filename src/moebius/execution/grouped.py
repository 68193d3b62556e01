"""The execution by torch's grouped matrix product over sorted rows."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.routing import Routing
from moebius.core.stack import Stack
from moebius.core.transforms import needs_second_backward
from moebius.execution._contract import Execution
from moebius.execution._layers import apply_with_layers, stacked_weights
from moebius.execution._order import sort_by_expert
from moebius.execution._pool import Pool
from moebius.execution._readable import readable_gradients
from moebius.execution.stacked import all_outputs

# The kernels take strides that are multiples of 16 bytes, which are 8 numbers in bf16.
_ALIGNMENT = 8


class Grouped(Execution):
    """Sort the rows by expert and multiply them with `torch.nn.functional.grouped_mm`, one call for each dense layer.

    It takes only bf16: for other number formats torch falls back to loops, and refuses to compile them. The device
    never waits for the host, and no shape depends on the routing.

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool(Stack([nn.Linear(4, 3), nn.Linear(4, 3)]).bfloat16())
        >>> Grouped().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4).bfloat16()).shape
        torch.Size([5, 3])

    Reference: ours; torch's grouped_mm.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, everything but stacks of dense layers in bf16, or under autocast to bf16."""
        if routing.selection is None:
            return None
        reason = pool.refuses_rows(x)
        if reason is None and product_dtype(x) != torch.bfloat16:
            return f"needs bf16, and these rows are {product_dtype(x)}"
        return reason

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        selection, stack = routing.selection, pool.stack
        if selection is None or stack is None:
            return all_outputs(pool, x)
        order, counts = sort_by_expert(selection.expert_A, selection.kept_A, len(pool))
        kept, ends = selection.kept_A[order].unsqueeze(1), counts.cumsum(0).int()
        layer = _GroupedLayer(stack, selection.expert_A[order], kept, ends)
        values = apply_with_layers(stack.template, x[selection.row_A[order]], layer)
        return torch.zeros_like(values).index_copy(0, order, torch.where(kept, values, 0))


def product_dtype(x: Tensor) -> torch.dtype:
    """The number format of products of these rows: that of autocast where it is enabled."""
    device = x.device.type
    # Autocast does not change float64, and does not support the meta device.
    is_cast = not x.is_meta and torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if is_cast else x.dtype


class _GroupedLayer:
    """A dense layer of rows sorted by expert.

    Arguments:
        stack: of the experts.
        expert: the expert of each row.
        kept: (A, 1), whether its assignment is kept; those that are not come last.
        ends: for each expert the index after its last row.
    """

    def __init__(self, stack: Stack, expert: Tensor, kept: Tensor, ends: Tensor):
        self.stack, self.expert, self.kept, self.ends = stack, expert, kept, ends

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(self.stack, linear)
        # The kernel does not write rows after the last group: zeros in the input keep them out of gradients, too.
        y = _GroupedProduct.apply(torch.where(self.kept, x, 0).bfloat16(), weight.bfloat16(), self.ends)
        assert isinstance(y, Tensor)
        y = torch.where(self.kept, y, 0)
        return y if bias is None else y + bias.bfloat16()[self.expert]


class _GroupedProduct(torch.autograd.Function):
    """x Wᵀ group by group, with strides padded for the kernels and gradients made contiguous."""

    @staticmethod
    def forward(ctx, x, weight, ends):
        ctx.save_for_backward(x, weight, ends)
        y = F.grouped_mm(_pad_axis(x, 1), _pad_axis(_pad_axis(weight, 1), 2).transpose(1, 2), offs=ends)
        return y[:, : weight.shape[1]]

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,) = gradients
        x, weight, ends = ctx.saved_tensors
        if needs_second_backward(gradient):
            needs = ctx.needs_input_grad[:2]
            return *readable_gradients(lambda x, weight: _readable(x, weight, ends), gradient, needs, x, weight), None
        gradient = _pad_axis(gradient.contiguous(), 1)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = F.grouped_mm(gradient, _pad_axis(_pad_axis(weight, 1), 2), offs=ends)[:, : x.shape[1]]
        if ctx.needs_input_grad[1]:
            dweight = F.grouped_mm(gradient.t(), _pad_axis(x, 1), offs=ends)[:, : weight.shape[1], : weight.shape[2]]
        return dx, dweight, None


def _readable(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The same product in plain operations, one expert after another; zeros after the last group."""
    bounds = [0, *ends.tolist()]
    products = [x[a:b] @ matrix.t() for a, b, matrix in zip(bounds, bounds[1:], weight.unbind(), strict=False)]
    return torch.cat([*products, x.new_zeros(len(x) - bounds[-1], weight.shape[1])])


def _pad_axis(tensor: Tensor, axis: int) -> Tensor:
    """The contiguous tensor, padded with zeros until the length of the axis is aligned."""
    missing = -tensor.shape[axis] % _ALIGNMENT
    if not missing:
        return tensor.contiguous()
    return F.pad(tensor, (*[0, 0] * (tensor.ndim - 1 - axis), 0, missing))
