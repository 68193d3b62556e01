"""The router that assigns rows evenly while training."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.arguments import above_zero, positive
from moebius.errors import ArgumentError
from moebius.routers._normalisation import wide
from moebius.routers._selecting import counts, selected
from moebius.routing import Router, Routing


class Sinkhorn(Router):
    """The k best experts of scores that were evened out over the batch; balance by assignment, without a loss.

    S = exp(scores / temperature), its columns and rows scaled in turn to sum to T/E and 1 (Sinkhorn-Knopp), no gradient
    chosen = the k largest of S while training, of the scores in eval
    weights = softmax(scores) of the chosen, renormalised over them where k > 1

    The evened-out matrix decides; the weights are the gate's own probabilities, so that it has a gradient.

    Arguments:
        k: how many experts a row has, at least 1.
        iterations: how often columns and rows are scaled, at least 1.
        temperature: above 0; lower ones make the assignment firmer, and take more iterations to even out.

    Shapes: scores (T, E) → Routing with T·k assignments.

    Raises:
        ArgumentError: k or iterations below 1, or a temperature that is not above 0.

    Example:
        >>> router = Sinkhorn()  # every row prefers expert 0, the second least of all
        >>> router(torch.tensor([[2.0, 0.0], [1.0, 0.0]])).selection.expert_A
        tensor([0, 1])
        >>> router.eval()(torch.tensor([[2.0, 0.0], [1.0, 0.0]])).selection.expert_A
        tensor([0, 0])

    Reference: Clark et al. 2022, Unified Scaling Laws for Routed Language Models, section 2.1 and appendix B (S-BASE).
    """

    def __init__(self, k: int = 1, iterations: int = 8, temperature: float | int = 1.0):
        super().__init__()
        if isinstance(k, bool) or k < 1:
            raise ArgumentError("k", "needs a whole number of at least 1", k, "k: 1")
        self.k, self.iterations = k, positive("iterations", iterations)
        self.temperature = above_zero("temperature", temperature)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 for several experts: one expert's weight is its probability."""
        return 1.0 if round(self.k) > 1 else None

    def max_active(self, experts: int) -> int:
        """k."""
        return min(round(self.k), experts)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its k best experts, evened out while training."""
        experts = scores.shape[1]
        k = min(round(self.k), experts)
        wide_scores = wide(scores)
        choice = self._even(wide_scores.detach()) if self.training and len(scores) else wide_scores.detach()
        expert_TK = choice.topk(k, -1).indices
        probs = wide_scores.softmax(-1)
        weight_TK = wide_scores.gather(1, expert_TK).softmax(-1) if k > 1 else probs.gather(1, expert_TK)
        aux = {"assigned": counts(expert_TK.flatten(), experts)}
        return Routing.from_selection(scores, probs, selected(expert_TK, weight_TK), aux)

    def _even(self, scores: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """In log space; an expert that is ruled out for every row stays so."""
        logs = (scores / self.temperature).clamp(min=torch.finfo(scores.dtype).min / 8)
        for _ in range(self.iterations):
            logs = logs - logs.logsumexp(0, keepdim=True)
            logs = logs - logs.logsumexp(1, keepdim=True)
        return torch.where(scores > -torch.inf, logs, -torch.inf)
