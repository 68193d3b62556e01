"""The router that assigns rows evenly in training."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_integer, positive_number
from moebius.routers._selecting import expert_counts, top_experts, top_k_selection, whole_k


class Sinkhorn(Router):
    """The k best experts by scores evened out over the training batch: balance without a loss.

    S = exp(scores / temperature), its columns and rows scaled in turn to sum to T/E and 1 (Sinkhorn-Knopp), no gradient
    chosen = the k largest of S in training, of the scores in eval
    weights = softmax(scores) of the chosen, renormalised over them where k > 1

    S determines only the choice; the weights are the gate's probabilities, so that the gate has a gradient. In training
    a row's choice therefore depends on the other rows of its batch (in its process); in eval it does not. Loads are
    nearly equal, not exactly: every expert has the same share of S, but the k largest entries of a row are only most of
    S.

    Arguments:
        k: number of experts of a row, at least 1; `training.router` may give it a schedule, whose values are rounded.
        iterations: how many times columns and rows are scaled, at least 1.
        temperature: above 0; a lower one makes assignments more definite, and needs more iterations.

    Shapes: scores (T, E) → Routing with T·k assignments; `aux["assigned"]` (E,).

    Raises:
        ArgumentError: k or iterations below 1, or a temperature not above 0.

    Example:
        >>> router = Sinkhorn()  # both rows prefer expert 0, the second one less
        >>> router(torch.tensor([[2.0, 0.0], [1.0, 0.0]])).selection.expert_A
        tensor([0, 1])
        >>> router.eval()(torch.tensor([[2.0, 0.0], [1.0, 0.0]])).selection.expert_A
        tensor([0, 0])

    Reference: Clark et al. 2022, Unified Scaling Laws for Routed Language Models (S-BASE), for one expert a row;
    Sinkhorn, Knopp 1967, Concerning Nonnegative Matrices and Doubly Stochastic Matrices.
    """

    aux_names = ("assigned",)

    def __init__(self, k: int = 1, iterations: int = 8, temperature: float | int = 1.0):
        super().__init__()
        self.k, self.iterations = positive_integer("k", k), positive_integer("iterations", iterations)
        self.temperature = positive_number("temperature", temperature)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 for k above 1; None for k = 1, where the weight is a probability."""
        return 1.0 if round(self.k) > 1 else None

    def max_active(self, experts: int) -> int:
        """k."""
        return whole_k(self.k, experts)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its k best experts, evened out in training."""
        experts = scores.shape[1]
        k = self.max_active(experts)
        wide_scores = at_least_float32(scores)
        ranking = wide_scores.detach()
        expert_TK = top_experts(self._even_out(ranking) if self.training else ranking, k)
        probs = wide_scores.softmax(-1)
        weight_TK = wide_scores.gather(1, expert_TK).softmax(-1) if k > 1 else probs.gather(1, expert_TK)
        aux = {"assigned": expert_counts(expert_TK.flatten(), experts)}
        return Routing.from_selection(scores, probs, top_k_selection(expert_TK, weight_TK), aux)

    def _even_out(self, scores: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """ln S, up to a constant that is the same for all columns."""
        evened = scores / self.temperature
        for _ in range(self.iterations):
            total_E = evened.logsumexp(0)
            # An expert with a score of −∞ for every row keeps it.
            evened = (evened - torch.where(total_E.isfinite(), total_E, 0)).log_softmax(-1)
        return evened
