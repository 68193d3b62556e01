"""The load balancing loss of the Switch transformer."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.precision import at_least_float32
from moebius.core.processes import sum_over_processes
from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows


@needs(distribution=True)
def switch_balance(routing: Routing) -> Float[Tensor, ""]:
    """The Switch transformer's balance term: moves probability away from experts that get more rows than their share.

    loss = E · Σ_e f_e · P_e,  f_e = share of the assignments that went to e,  P = mean_i G(x_i)

    f has no gradient. It counts the assignments before capacity drops any, if the router reports them
    (`aux["assigned"]`); otherwise the kept assignments; or, if every expert sees every row, each row's largest weight.
    f sums to 1 for any number k of experts per row, so balance gives a loss of 1 for every k; the paper has k = 1.

    Range [0, E]; the maximum E lies where a single expert has all probability and all rows. The loss is 1 where f or P
    is uniform, which is the minimum among routings with f = P (there the loss is E · Σ_e P_e²). It is not the global
    minimum: the loss is below 1 where the experts with many rows have little probability. With two experts and four
    rows, three that narrowly choose the first (1/2, 1/2) and one that puts all on the second (0, 1), it is 0.875. What
    balances is its gradient, E · f_e, not its value. The shares are over the rows of one call: under gradient
    accumulation, over the micro-batch.

    Raises:
        ArgumentError: the rows of `probs` are not distributions (relu, elu … gates).

    Example:
        >>> import torch
        >>> from moebius.routers import Argmax
        >>> switch_balance(Argmax()(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log()))
        tensor(1.5000)

    Reference: Fedus, Zoph, Shazeer 2021, Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity, equations 4 to 6; its factor α is the recipe's `weight`.
    """
    mean = mean_over_rows(gate_distribution(routing))
    counts_E = sum_over_processes(_count_assignments(routing).to(mean.dtype))
    return routing.experts * (counts_E / counts_E.sum().clamp(min=1) * mean).sum()


@torch.no_grad()
def _count_assignments(routing: Routing) -> Float[Tensor, " E"]:
    """How many assignments each expert has."""
    if "assigned" in routing.aux:
        return at_least_float32(routing.aux["assigned"])
    weights, selection = routing.weights, routing.selection
    expert_A = weights.argmax(-1) if selection is None else selection.expert_A
    kept_A = torch.ones_like(expert_A) if selection is None else selection.kept_A
    return weights.new_zeros(routing.experts).index_add(0, expert_A, kept_A.to(weights.dtype))
