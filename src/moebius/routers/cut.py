"""The router that keeps the best of the experts that another router chooses."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing, Selection
from moebius.kit.arguments import positive_integer
from moebius.routers._selecting import single_selection, top_k_selection, whole_k, with_selection


class Cut(Router):
    """Only the k experts with the largest weights of another router run for each row; their weights then sum to 1.

    weights_e = w_e / Σ_{j chosen} w_j for the k largest of w, the other router's weights;  probs as the other router's

    With k = 1 the weight is 1. It measures what a mixture loses that was trained with several experts and is then
    reduced to fewer. A row without experts in the other router's routing goes by its `probs`. Weights below 0 count as
    0, and a row of them alone goes to its largest. Choice and weights have no gradient.

    Arguments:
        router: the other router.
        k: number of experts of a row, at least 1.

    Shapes: scores (T, G), as the other router takes → Routing with T·k assignments.

    Raises:
        ArgumentError: k below 1.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> Cut(Soft())(torch.tensor([[0.0, 2.0], [1.0, 1.0]])).weights
        tensor([[0., 1.],
                [1., 0.]])

        >>> Cut(Soft(), k=2)(torch.tensor([[3.0, 1.0, 4.0]]).log()).weights
        tensor([[0.4286, 0.0000, 0.5714]])

    Reference: ours; study 5's `soft-argmax`.
    """

    trains_gate = False

    def __init__(self, router: Router, k: int = 1):
        super().__init__()
        self.router, self.k = router, positive_integer("k", k)
        self.rows_independent = router.rows_independent
        self.interchangeable = router.interchangeable
        self.needs_keys = router.needs_keys
        self.aux_names = router.aux_names

    def gate_outputs(self, experts: int) -> int:
        """The number that the other router takes."""
        return self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """k."""
        return whole_k(self.k, experts)

    def forward(self, scores: Float[Tensor, "T G"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row to the experts with the largest weights of the other router."""
        routing = self.router(scores, keys) if self.needs_keys else self.router(scores)
        has_no_expert = (routing.weights == 0).all(-1, keepdim=True)
        ranking = torch.where(has_no_expert, routing.probs, routing.weights).detach()
        k = self.max_active(ranking.shape[1])
        if k == 1:
            weights, log_weights, selection = single_selection(ranking.argmax(-1), routing.probs.detach())
        else:
            weights, log_weights, selection = _select_several(ranking, k)
        return with_selection(routing, weights, log_weights, selection)


def _select_several(ranking: Float[Tensor, "T E"], k: int) -> tuple[Tensor, Tensor, Selection]:
    """Weights, log-weights and selection of the k largest of each row, scaled to sum to 1."""
    values_TK, expert_TK = ranking.topk(k, -1)
    values_TK = values_TK.clamp(min=0)
    total = values_TK.sum(-1, keepdim=True)
    first_TK = torch.zeros_like(values_TK)
    first_TK[:, 0] = 1
    weight_TK = torch.where(total > 0, values_TK / torch.where(total > 0, total, 1), first_TK)
    weights = torch.zeros_like(ranking).scatter(1, expert_TK, weight_TK)
    return weights, weights.log(), top_k_selection(expert_TK, weight_TK)
