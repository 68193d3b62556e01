"""The router of the Switch transformer."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing, Selection
from moebius.kit.arguments import non_negative, positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers._selecting import Rows, expert_capacity, expert_counts, sort_scores, top_experts


class Switch(Router):
    """Only the best expert sees the row, weighted by its probability, as long as its capacity lasts.

    weights_e = softmax(scores)_e where e is the best, else 0;  each expert takes ⌈capacity · T / E⌉ rows at most

    Rows are assigned in their order; a row whose expert is full is dropped (no expert, weight 0; counted in
    `aux["dropped"]`). With `next_best` all rows without an expert try their second best expert, then their third, and
    so on: with a capacity of at least 1 every row gets an expert. In eval the capacity is unlimited unless
    `eval_capacity` is given. In training the scores are multiplied by noise from [1 − jitter, 1 + jitter]; the paper
    multiplies the gate's input, which a router does not have. The `log_mixture` of a dropped row is −∞, which has no
    likelihood: with it use `next_best`, or no capacity.

    Arguments:
        capacity: largest number of rows of an expert, in multiples of T / E, above 0; None for no limit.
        jitter: at least 0, below 1; 0.01 in the paper. With the default 0, equal calls give equal routings.
        eval_capacity: the capacity in eval, where a row's expert then depends on the rows before it; None for no limit.
        next_best: whether rows whose expert is full go to other experts.

    Shapes: scores (T, E) → Routing with T assignments, one per row; `aux["dropped"]` (), `aux["assigned"]` (E,), which
        includes dropped rows.

    Raises:
        ArgumentError: a capacity not above 0, or a jitter outside [0, 1).

    Example:
        >>> routing = Switch(capacity=1.0, jitter=0.0)(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        >>> routing.weights
        tensor([[0.7311, 0.0000],
                [0.0000, 0.0000]])
        >>> routing.aux["dropped"]
        tensor(1)

    Reference: Fedus, Zoph, Shazeer 2021, Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity, equations 1 to 3; `next_best` as in Lepikhin et al. 2020, GShard, beyond the second expert ours.
    """

    rows_sum_to = None
    aux_names = ("assigned", "dropped")

    def __init__(
        self,
        capacity: float | int | None = 1.25,
        jitter: float | int = 0.0,
        eval_capacity: float | int | None = None,
        next_best: bool = False,
    ):
        super().__init__()
        self.capacity = None if capacity is None else positive_number("capacity", capacity)
        self.jitter = non_negative("jitter", jitter)
        if jitter >= 1:
            raise ArgumentError("jitter", "needs a number below 1", jitter, "jitter: 0.01")
        self.eval_capacity = None if eval_capacity is None else positive_number("eval_capacity", eval_capacity)
        self.next_best = next_best
        self.rows_independent = eval_capacity is None

    def max_active(self, experts: int) -> int:
        """1."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its best expert that is not full."""
        rows, experts = scores.shape
        noisy = at_least_float32(scores)
        if self.training and self.jitter:
            noisy = noisy * torch.empty_like(noisy).uniform_(1 - self.jitter, 1 + self.jitter)
        probs = noisy.softmax(-1)
        capacity = self.capacity if self.training else self.eval_capacity
        limit = rows if capacity is None else expert_capacity(capacity, rows, experts)
        ranked_TR = top_experts(noisy.detach(), 1)
        # In a compiled graph the number of rows is symbolic, and `limit < rows` would fix it.
        if self.next_best and capacity is not None and (torch.compiler.is_compiling() or limit < rows):
            ranked_TR = sort_scores(noisy.detach())[1]
        expert_A, kept_A = _assign_in_order(ranked_TR, experts, limit)
        weight_A = probs.gather(1, expert_A.unsqueeze(1)).squeeze(1)
        # No row is kept for an expert with a score of −∞.
        kept_A = kept_A & (weight_A != 0)
        row_A = torch.arange(rows, device=scores.device)
        aux = {"assigned": expert_counts(ranked_TR[:, 0], experts), "dropped": (~kept_A).sum()}
        return Routing.from_selection(scores, probs, Selection(row_A, expert_A, weight_A, kept_A), aux)


def _assign_in_order(
    ranked_TR: Int[Tensor, "T R"], experts: int, limit: Rows
) -> tuple[Int[Tensor, " T"], Bool[Tensor, " T"]]:
    """The first expert in each row's ranking that is not full, and whether there is one.

    All rows try their best expert, in their order; then the rows without an expert try their second, and so on.

    Arguments:
        ranked_TR: R experts for each row, the best first.
        experts: E.
        limit: largest number of rows of an expert.
    """
    rows, ranks = ranked_TR.shape
    expert_T, kept_T = ranked_TR[:, 0], torch.zeros(rows, dtype=torch.bool, device=ranked_TR.device)
    count_E = torch.zeros(experts, dtype=torch.long, device=ranked_TR.device)
    for rank in range(ranks):
        candidate_T1 = ranked_TR[:, rank : rank + 1]
        request_TE = torch.zeros(rows, experts, dtype=torch.long, device=ranked_TR.device)
        request_TE = request_TE.scatter(1, candidate_T1, (~kept_T).long().unsqueeze(1))
        fits_T = (request_TE.cumsum(0) + count_E).gather(1, candidate_T1).squeeze(1) <= limit
        assigned_T = fits_T & ~kept_T
        expert_T, kept_T = torch.where(assigned_T, candidate_T1.squeeze(1), expert_T), kept_T | assigned_T
        count_E = count_E.index_add(0, candidate_T1.squeeze(1), assigned_T.long())
    return expert_T, kept_T
