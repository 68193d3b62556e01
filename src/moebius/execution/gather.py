"""The execution for very few rows: each row reads the weights of its expert."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.routing import Routing
from moebius.core.stack import Stack
from moebius.execution._contract import Execution
from moebius.execution._few_rows import few_products
from moebius.execution._layers import Layer, apply_with_layers, stacked_weights
from moebius.execution._pool import Pool
from moebius.execution._weighted_rows import sum_by_row
from moebius.execution.stacked import all_outputs


class Gather(Execution):
    """Multiply each assignment's row with the weights of its expert.

    No rows are sorted or counted, which for one row or a few would be most of the work. On a CPU the weights are read
    in place; on a GPU they are gathered, one copy for each assignment, so that the host need not wait for the device.

    Example:
        >>> from moebius.routers import TopK
        >>> experts = Pool(Stack([nn.Linear(4, 3), nn.Linear(4, 3)]))
        >>> Gather().run(experts, TopK(1)(torch.zeros(1, 2)), torch.zeros(1, 4)).shape
        torch.Size([1, 3])

    Reference: ours.
    """

    def refuses(self, pool: Pool, routing: Routing, x: Tensor) -> str | None:
        """Where the router selects, everything but stacks of dense layers on rows that are vectors."""
        return None if routing.selection is None else pool.refuses_rows(x)

    def run(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
        """The outputs of all experts, or one for each assignment."""
        selection, stack = routing.selection, pool.stack
        if selection is None or stack is None:
            return all_outputs(pool, x)
        rows = x.index_select(0, selection.row_A)
        # On a CPU it costs less to look than to select.
        all_kept = x.device.type == "cpu" and not torch.compiler.is_compiling() and bool(selection.kept_A.all())
        if not all_kept:
            # Dropped assignments are computed too, and their values must not reach a gradient.
            rows = torch.where(selection.kept_A.view(-1, *[1] * (x.ndim - 1)), rows, 0)
        copies = x.is_cuda or not len(rows)
        layer = (
            _copying_layer(stack, selection.expert_A) if copies else _reading_layer(stack, selection.expert_A.tolist())
        )
        values = apply_with_layers(stack.template, rows, layer)
        return values if all_kept else torch.where(selection.kept_A.unsqueeze(-1), values, 0)

    def sum(self, pool: Pool, routing: Routing, x: Float[Tensor, "T ..."]) -> Tensor | None:
        """Σ_a weight_a · expert_a(x_a) on a CPU without gradients; None elsewhere."""
        selection = routing.selection
        if selection is None or torch.is_grad_enabled() or torch.compiler.is_compiling() or x.is_cuda:
            return None
        values = self.run(pool, routing, x)
        return sum_by_row(values, selection.row_A, selection.weight_A, len(x)) if values.ndim == 2 else None


def _reading_layer(stack: Stack, expert_numbers: list[int]) -> Layer:
    """A dense layer in which the row of each assignment reads the weights of its expert in place."""

    def layer(linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(stack, linear)
        # Under autocast the formats differ.
        if not torch.is_grad_enabled() and x.dtype == weight.dtype and x.ndim == 2:
            return few_products(x, weight, bias, expert_numbers)
        # unbind, since the gradient of each weight[e] would be as large as the weights of all experts.
        weights, biases = weight.unbind(), None if bias is None else bias.unbind()
        pairs = zip(x.unbind(), expert_numbers, strict=True)
        return torch.stack([F.linear(row, weights[e], None if biases is None else biases[e]) for row, e in pairs])

    return layer


def _copying_layer(stack: Stack, expert_A: Tensor) -> Layer:
    """A dense layer for which the weights of each assignment's expert are copied."""

    def layer(linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(stack, linear)
        weight_A, column_A = weight[expert_A], x.unsqueeze(-1)
        if bias is None:
            return torch.bmm(weight_A, column_A).squeeze(-1)
        # One call, so that under autocast the sum too has the format of the product.
        return torch.baddbmm(bias[expert_A].unsqueeze(-1), weight_A, column_A).squeeze(-1)

    return layer
