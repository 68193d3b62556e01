"""Each row's own weights, for very few rows."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.errors import ArgumentError
from moebius.execution._every import every
from moebius.execution._product import product
from moebius.execution._rowwise import through, why_not_rowwise
from moebius.routing import Routing
from moebius.stack import Stack


def gather(
    experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Multiply each assignment's row with the weights of its expert.

    No rows are sorted and nothing is counted, which for a row or a few is most of the work. On a CPU the weights are
    read where they lie; on a GPU they are gathered, a copy for each assignment, so that the host waits for nothing.

    Arguments, Returns: as of `loop`; experts are a `Stack` of dense layers.

    Raises:
        ArgumentError: the experts are something else.

    Reference: ours.
    """
    selection = routing.selection
    if selection is None:
        return every(experts, x, routing)
    why = why_not_rowwise(experts, x)
    if why is not None or not isinstance(experts, Stack):
        raise ArgumentError("execution", f"gather {why}", "gather", 'execution="auto"')
    kept = selection.kept_A.view(-1, *[1] * (x.ndim - 1))
    # What was dropped is computed, too, and its values must not reach a gradient.
    rows = torch.where(kept, x[selection.row_A], 0)
    if not len(rows):
        return through(experts[0], rows, lambda linear, x: linear(x))
    layer = _copied(selection.expert_A) if x.is_cuda else _in_place(selection.expert_A.tolist())
    values = through(experts.stacked, rows, layer)
    return torch.where(selection.kept_A.unsqueeze(-1), values, 0)


def _in_place(chosen: list[int]):
    def layer(linear: nn.Linear, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return torch.cat([_dense(linear, x[place : place + 1], e) for place, e in enumerate(chosen)])
        # One unbind: the gradient of each t[e] would be as large as all experts together.
        weights, biases = linear.weight.unbind(), None if linear.bias is None else linear.bias.unbind()
        pairs = zip(x.unbind(), chosen, strict=True)
        return torch.stack([F.linear(row, weights[e], None if biases is None else biases[e]) for row, e in pairs])

    return layer


def _dense(linear: nn.Linear, x: Tensor, expert: int) -> Tensor:
    weight, bias = linear.weight[expert], None if linear.bias is None else linear.bias[expert]
    if x.dtype != weight.dtype:  # autocast, which `product` knows nothing of
        return F.linear(x, weight, bias)
    return product(x, weight, bias)


def _copied(expert_A: Tensor):
    def layer(linear: nn.Linear, x: Tensor) -> Tensor:
        y = torch.bmm(linear.weight[expert_A], x.unsqueeze(-1)).squeeze(-1)
        return y if linear.bias is None else y + linear.bias[expert_A]

    return layer
