"""The router that keeps one expert of what another chooses."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing
from moebius.routers._selecting import single_selection


class Cut(Router):
    """Of another router's weights the largest alone stays, as 1: one expert runs for each row.

    weights_e = 1 where e = argmax w, else 0, with w the other router's weights;  probs as the other router's

    For the question what a mixture loses that was trained with several experts and is then cut to one. A row that the
    other router gives no expert at all goes to the one with the largest of `probs`. The decision has no gradient.

    Arguments:
        router: the other router.

    Shapes: scores (T, G) as the other router takes them → Routing with T assignments, one per row.

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
        """As many as the other router wants."""
        return self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """One."""
        return 1

    def forward(self, scores: Float[Tensor, "T G"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row to the expert that the other router weighs most."""
        whole = self.router(scores, keys) if self.needs_keys else self.router(scores)
        left_out = (whole.weights == 0).all(-1, keepdim=True)
        expert_T = torch.where(left_out, whole.probs, whole.weights).detach().argmax(-1)
        weights, log_weights, selection = single_selection(expert_T, whole.probs.detach())
        return replace(
            whole,
            weights=weights,
            log_weights=log_weights,
            selection=selection,
            head_weights=None,
            straight_through=False,
        )
