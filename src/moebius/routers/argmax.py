"""The router that decides."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.routing import Router, Routing, Selection


class Argmax(Router):
    """The expert with the largest score alone sees the row, with weight 1; the first of several that tie.

    weights_e = 1 where e = argmax scores, else 0;  probs = softmax(scores)

    The decision has no gradient, so no loss of the output trains the gate: this is for gates that are made by hand or
    trained before. Only the chosen expert runs.

    Shapes: scores (T, E) → Routing with T assignments, one per row.

    Example:
        >>> import torch
        >>> routing = Argmax()(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
        >>> routing.weights
        tensor([[0., 1.],
                [1., 0.]])
        >>> routing.selection.expert_A
        tensor([1, 0])

    Reference: ours; with the domain gate, study 1's pre-designed gate.
    """

    trains_gate = False

    def max_active(self, experts: int) -> int:
        """One."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its best expert."""
        probs = (scores.float() if scores.itemsize < 4 else scores).softmax(-1)
        expert_A = scores.argmax(-1)
        row_A = torch.arange(len(scores), device=scores.device)
        weight_A = probs.new_ones(len(scores))
        selection = Selection(row_A, expert_A, weight_A, torch.ones_like(row_A, dtype=torch.bool))
        weights = torch.zeros_like(probs).scatter(1, expert_A.unsqueeze(1), 1.0)
        log_weights = torch.full_like(probs, -torch.inf).scatter(1, expert_A.unsqueeze(1), 0.0)
        return Routing(scores, probs, weights, log_weights, selection)
