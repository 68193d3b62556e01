"""The load balancing loss of the Switch transformer."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.processes import sum_over_processes
from moebius.core.routing import Routing
from moebius.losses._distribution import gate_distribution, mean_over_rows
from moebius.routers._normalisation import at_least_float32


def switch_balance(routing: Routing) -> Float[Tensor, ""]:
    """Moves the gate's probability away from experts that get more than their share of the rows.

    loss = E · Σ_e f_e · P_e,  f_e = share of the assignments that went to e,  P = mean_i G(x_i)

    f has no gradient. It counts assignments before any is dropped for lack of capacity, where the router says so
    (`aux["assigned"]`), else the kept ones, else, where every expert sees every row, each row's largest weight. f sums
    to 1 for any number of experts per row, so that balance is worth 1 for each k; the paper has k = 1.

    Range [0, E]; the maximum E lies where all is said of and sent to a single expert. The loss is 1 where f or P is
    uniform, and that is the minimum among those with f = P (then it is E · Σ_e P_e²). It is not the minimum of all: the
    loss is below 1 where the experts with many rows have little probability. With two experts, three rows in four that
    barely choose the first (1/2, 1/2) and one that is sure of the second (0, 1), it is 0.875. Its use is its gradient,
    E · f_e, not its value. The shares are of the rows given: under gradient accumulation, of the micro-batch.

    Raises:
        ArgumentError: the gate weights are no distribution (relu, elu …).

    Example:
        >>> import torch
        >>> from moebius.routers import Argmax
        >>> switch_balance(Argmax()(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log()))
        tensor(1.5000)

    Reference: Fedus, Zoph, Shazeer 2021, Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity, equations 4 to 6; its factor α is the recipe's `weight`.
    """
    mean = mean_over_rows(gate_distribution(routing))
    assigned = sum_over_processes(_assigned(routing).to(mean.dtype))
    return routing.experts * (assigned / assigned.sum().clamp(min=1) * mean).sum()


@torch.no_grad()
def _assigned(routing: Routing) -> Float[Tensor, " E"]:
    if "assigned" in routing.aux:
        return at_least_float32(routing.aux["assigned"])
    weights, selection = routing.weights, routing.selection
    expert_A = weights.argmax(-1) if selection is None else selection.expert_A
    kept_A = torch.ones_like(expert_A) if selection is None else selection.kept_A
    return weights.new_zeros(routing.experts).index_add(0, expert_A, kept_A.to(weights.dtype))
