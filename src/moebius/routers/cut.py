"""The router that keeps one expert of those that another router chooses."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing
from moebius.routers._selecting import single_selection


class Cut(Router):
    """Only the expert with the largest weight of another router runs for each row, with weight 1.

    weights_e = 1 where e = argmax w, else 0, with w the other router's weights;  probs as the other router's

    It measures what a mixture loses that was trained with several experts and is then reduced to one. A row without
    experts in the other router's routing goes to the expert with the largest of its `probs`. The choice has no
    gradient.

    Arguments:
        router: the other router.

    Shapes: scores (T, G), as the other router takes → Routing with T assignments, one per row.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> Cut(Soft())(torch.tensor([[0.0, 2.0], [1.0, 1.0]])).weights
        tensor([[0., 1.],
                [1., 0.]])

    Reference: ours; study 5's `soft-argmax`.
    """

    trains_gate = False

    def __init__(self, router: Router):
        super().__init__()
        self.router = router
        self.rows_independent = router.rows_independent
        self.interchangeable = router.interchangeable
        self.needs_keys = router.needs_keys
        self.aux_names = router.aux_names

    def gate_outputs(self, experts: int) -> int:
        """The number that the other router takes."""
        return self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """1."""
        return 1

    def forward(self, scores: Float[Tensor, "T G"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row to the expert with the largest weight of the other router."""
        routing = self.router(scores, keys) if self.needs_keys else self.router(scores)
        has_no_expert = (routing.weights == 0).all(-1, keepdim=True)
        expert_T = torch.where(has_no_expert, routing.probs, routing.weights).detach().argmax(-1)
        weights, log_weights, selection = single_selection(expert_T, routing.probs.detach())
        return replace(
            routing,
            weights=weights,
            log_weights=log_weights,
            selection=selection,
            head_weights=None,
            straight_through=False,
        )
