"""torch's grouped matrix product over sorted rows."""

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

# Numbers in 16 bytes of bf16, which the strides of what is multiplied have to be multiples of.
_ALIGNED = 8


class Grouped(Execution):
    """Sort the rows by expert and multiply them with `torch.nn.functional.grouped_mm`, one call for each dense layer.

    bf16 alone: for other formats torch falls back to loops, and refuses them where it compiles. Nothing waits for the
    host, and no shape depends on the routing.

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool(Stack([nn.Linear(4, 3), nn.Linear(4, 3)]).bfloat16())
        >>> Grouped().run(experts, TopK(1)(torch.zeros(5, 2)), torch.zeros(5, 4).bfloat16()).shape
        torch.Size([5, 3])

    Reference: ours; torch's grouped_mm.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, all but stacks of dense layers in bf16, or under autocast to it."""
        if routing.selection is None:
            return None
        why = pool.refuses_rows(x)
        if why is None and product_dtype(x) != torch.bfloat16:
            return f"needs bf16, and these rows are {product_dtype(x)}"
        return why

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        selection, stack = routing.selection, pool.stack
        if selection is None or stack is None:
            return all_outputs(pool, x)
        order, counts = sort_by_expert(selection.expert_A, selection.kept_A, len(pool))
        kept, ends = selection.kept_A[order].unsqueeze(1), counts.cumsum(0).int()
        layer = _Layer(stack, selection.expert_A[order], kept, ends)
        values = apply_with_layers(stack.template, x[selection.row_A[order]], layer)
        return torch.zeros_like(values).index_copy(0, order, torch.where(kept, values, 0))


def product_dtype(x: Tensor) -> torch.dtype:
    """The number format that products of these rows have: autocast's where it is on."""
    device = x.device.type
    # Autocast leaves float64 as it is, and knows nothing of the meta device.
    cast = not x.is_meta and torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if cast else x.dtype


class _Layer:
    """A dense layer of sorted rows."""

    def __init__(self, stack: Stack, expert: Tensor, kept: Tensor, ends: Tensor):
        self.stack, self.expert, self.kept, self.ends = stack, expert, kept, ends

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(self.stack, linear)
        # What lies past the last group is never written: zeros on the way in keep it out of gradients, too.
        y = _Product.apply(torch.where(self.kept, x, 0).bfloat16(), weight.bfloat16(), self.ends)
        assert isinstance(y, Tensor)
        y = torch.where(self.kept, y, 0)
        return y if bias is None else y + bias.bfloat16()[self.expert]


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
        if needs_second_backward(gradient):
            wanted = ctx.needs_input_grad[:2]
            return *readable_gradients(lambda x, weight: _readable(x, weight, ends), gradient, wanted, x, weight), None
        gradient = _padded(gradient.contiguous(), 1)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = F.grouped_mm(gradient, _padded(_padded(weight, 1), 2), offs=ends)[:, : x.shape[1]]
        if ctx.needs_input_grad[1]:
            dweight = F.grouped_mm(gradient.t(), _padded(x, 1), offs=ends)[:, : weight.shape[1], : weight.shape[2]]
        return dx, dweight, None


def _readable(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The same, an expert after another; zeros past the last group."""
    begins = [0, *ends.tolist()]
    pieces = [x[a:b] @ matrix.t() for a, b, matrix in zip(begins, begins[1:], weight.unbind(), strict=False)]
    return torch.cat([*pieces, x.new_zeros(len(x) - begins[-1], weight.shape[1])])


def _padded(tensor: Tensor, axis: int) -> Tensor:
    missing = -tensor.shape[axis] % _ALIGNED
    if not missing:
        return tensor.contiguous()
    return F.pad(tensor, (*[0, 0] * (tensor.ndim - 1 - axis), 0, missing))
