"""The router that gives each row its best expert."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.routers._selecting import single_selection


class Argmax(Router):
    """The expert with the largest score alone sees the row, with weight 1; the first of several that tie.

    weights_e = 1 where e = argmax scores, else 0;  probs = softmax(scores)

    The choice has no gradient, so no loss of the output trains the gate: this router is for gates that are set by hand
    or already trained. Only the chosen expert runs.

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
        """1."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to the expert with its largest score."""
        probs = at_least_float32(scores).softmax(-1)
        expert_T = scores.argmax(-1)
        return Routing(scores, probs, *single_selection(expert_T, probs))
