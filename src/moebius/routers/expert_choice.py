"""The router whose experts choose their rows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.arguments import above_zero
from moebius.routers._normalisation import wide
from moebius.routing import Router, Routing, Selection


class ExpertChoice(Router):
    """Every expert takes the rows that it is most probable for, all experts equally many: balanced by construction.

    G = softmax over experts of the scores;  expert e takes the ⌈capacity · T / E⌉ rows with the largest G_e
    weights_e = G_e where e took the row, else 0

    A row may have several experts or none (then its output is 0; `aux["unchosen"]` counts such rows). What a row gets
    depends on the rows beside it, also in eval: not for sequences that are generated token by token, and predictions
    change with the batch. With capacity = E every expert takes every row, as under `Soft`.

    Arguments:
        capacity: mean number of experts per row, above 0.

    Shapes: scores (T, E) → Routing with E·⌈capacity · T / E⌉ assignments, at most E·T.

    Raises:
        ArgumentError: a capacity that is not above 0.

    Example:
        >>> ExpertChoice(capacity=1)(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log()).weights
        tensor([[0.9000, 0.0000],
                [0.0000, 0.2000]])

    Reference: Zhou, Lei, Liu, Du, Huang, Zhao, Dai, Chen, Le, Laudon 2022, Mixture-of-Experts with Expert Choice
    Routing, equations 1 to 3; the capacity is rounded up, so that small batches leave no expert without rows.
    """

    rows_sum_to = None
    rows_independent = False

    def __init__(self, capacity: float | int = 2.0):
        super().__init__()
        self.capacity = above_zero("capacity", capacity)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Let every expert choose its rows."""
        rows, experts = scores.shape
        probs = wide(scores).softmax(-1)
        room = min(rows, math.ceil(self.capacity * rows / experts))
        row_ER = probs.detach().T.topk(room, -1).indices
        expert_A = torch.arange(experts, device=scores.device).repeat_interleave(room)
        row_A = row_ER.flatten()
        weight_A = probs[row_A, expert_A]
        selection = Selection(row_A, expert_A, weight_A, weight_A > 0)
        seen = torch.zeros(rows, dtype=torch.bool, device=scores.device).scatter(0, row_A, True)
        aux = {"assigned": torch.full((experts,), float(room), device=scores.device), "unchosen": (~seen).sum()}
        return Routing.from_selection(scores, probs, selection, aux)
