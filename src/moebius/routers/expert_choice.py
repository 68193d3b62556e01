"""The router by which experts choose their rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing, Selection
from moebius.kit.arguments import positive_number
from moebius.routers._selecting import expert_capacity, expert_counts


class ExpertChoice(Router):
    """Every expert takes the same number of rows, those with its largest probabilities; a row may have no expert.

    G = softmax over experts of the scores;  expert e takes the ⌈capacity · T / E⌉ rows with the largest G_e
    weights_e = G_e where e took the row, else 0

    The loads are equal by construction. A row that no expert takes has weights of 0: `weighted_sum` then gives 0 and
    `log_mixture` −∞, which has no likelihood. `aux["unchosen"]` counts such rows. A row's experts depend on the other
    rows of the batch, in eval too: predictions change with the batch, and in a sequence the routing of earlier tokens
    depends on later ones. With capacity = E every expert takes every row, as with the router `soft`.

    Arguments:
        capacity: mean number of experts per row, above 0; `training.router` may give it a schedule.

    Shapes: scores (T, E) → Routing with E·⌈capacity · T / E⌉ assignments, at most E·T; `aux["unchosen"]` (),
        `aux["assigned"]` (E,).

    Raises:
        ArgumentError: a capacity not above 0.

    Example:
        >>> ExpertChoice(capacity=1)(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log()).weights
        tensor([[0.9000, 0.0000],
                [0.0000, 0.2000]])

    Reference: Zhou, Lei, Liu, Du, Huang, Zhao, Dai, Chen, Le, Laudon 2022, Mixture-of-Experts with Expert Choice
    Routing, equations 1 and 2; the number of rows is rounded up, so that in small batches every expert has a row.
    """

    rows_sum_to = None
    rows_independent = False
    aux_names = ("assigned", "unchosen")

    def __init__(self, capacity: float | int = 2.0):
        super().__init__()
        self.capacity = positive_number("capacity", capacity)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Let every expert choose its rows."""
        rows, experts = scores.shape
        probs = at_least_float32(scores).softmax(-1)
        places = expert_capacity(self.capacity, rows, experts)
        # In an exported graph the number of rows is symbolic: there every expert ranks all rows, and keeps the first
        # ones.
        ranks = rows if torch.compiler.is_exporting() else places
        row_EP = probs.detach().T.topk(ranks, -1).indices
        expert_EP = torch.arange(experts, device=scores.device).unsqueeze(1).expand_as(row_EP)
        row_A, expert_A = row_EP.flatten(), expert_EP.flatten()
        taken_A = torch.ones_like(row_EP).cumsum(1).le(places).flatten()
        weight_A = probs[row_A, expert_A]
        selection = Selection(row_A, expert_A, weight_A, taken_A & (weight_A != 0))
        unchosen = (expert_counts(row_A, rows, selection.kept_A) == 0).sum()
        aux = {"assigned": expert_counts(expert_A, experts, selection.kept_A), "unchosen": unchosen}
        return Routing.from_selection(scores, probs, selection, aux)
