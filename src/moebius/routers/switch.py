"""The router of the Switch transformer."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing, Selection
from moebius.kit.arguments import non_negative, positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32
from moebius.routers._selecting import Rows, expert_capacity, expert_counts, sort_scores, top_experts


class Switch(Router):
    """The best expert alone sees the row, weighed by its probability, as long as the expert has room.

    weights_e = softmax(scores)_e where e is the best, else 0;  room for ⌈capacity · T / E⌉ rows per expert

    Rows come in their order; what finds no room is dropped (no expert, weight 0; counted in `aux["dropped"]`). With
    `next_best` all that are left over ask for their second best expert, then for their third, and so on: with a
    capacity of at least 1 every row finds room. In eval there is room for all unless `eval_capacity` says otherwise.
    While training, the scores are multiplied by noise from [1 − jitter, 1 + jitter]; the paper multiplies the gate's
    input, which a router does not see. A `log_mixture` of a dropped row is −∞, of which no likelihood can be taken:
    there take `next_best`, or no capacity.

    Arguments:
        capacity: room in multiples of an even share, above 0; None for no limit.
        jitter: at least 0, below 1; 0.01 in the paper. 0 unless given: equal calls give equal routings.
        eval_capacity: the same as capacity, in eval, where rows then depend on the rows before them.
        next_best: whether rows without room go on to other experts.

    Shapes: scores (T, E) → Routing with T assignments, one per row; `aux["dropped"]` (), `aux["assigned"]` (E,) before
        any is dropped.

    Raises:
        ArgumentError: a capacity that is not above 0, or a jitter outside [0, 1).

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
        """One."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its best expert with room."""
        rows, experts = scores.shape
        noisy = at_least_float32(scores)
        if self.training and self.jitter:
            noisy = noisy * torch.empty_like(noisy).uniform_(1 - self.jitter, 1 + self.jitter)
        probs = noisy.softmax(-1)
        capacity = self.capacity if self.training else self.eval_capacity
        places = rows if capacity is None else expert_capacity(capacity, rows, experts)
        ranked_TR = top_experts(noisy.detach(), 1)
        # A graph is for any number of rows.
        if self.next_best and capacity is not None and (torch.compiler.is_compiling() or places < rows):
            ranked_TR = sort_scores(noisy.detach())[1]
        expert_A, kept_A = _with_room(ranked_TR, experts, places)
        weight_A = probs.gather(1, expert_A.unsqueeze(1)).squeeze(1)
        # An expert that is ruled out, with a score of −∞, has room for nobody.
        kept_A = kept_A & (weight_A != 0)
        row_A = torch.arange(rows, device=scores.device)
        aux = {"assigned": expert_counts(ranked_TR[:, 0], experts), "dropped": (~kept_A).sum()}
        return Routing.from_selection(scores, probs, Selection(row_A, expert_A, weight_A, kept_A), aux)


def _with_room(ranked: Int[Tensor, "T R"], experts: int, places: Rows) -> tuple[Int[Tensor, " T"], Bool[Tensor, " T"]]:
    """For each row the first of its ranked experts that has a place left, and whether there was one.

    All rows ask for their best expert, in their order; then those left over for their second, and so on.
    """
    rows, ranks = ranked.shape
    expert_T, kept_T = ranked[:, 0], torch.zeros(rows, dtype=torch.bool, device=ranked.device)
    taken_E = torch.zeros(experts, dtype=torch.long, device=ranked.device)
    for rank in range(ranks):
        asked_T = ranked[:, rank : rank + 1]
        asking_TE = torch.zeros(rows, experts, dtype=torch.long, device=ranked.device)
        asking_TE = asking_TE.scatter(1, asked_T, (~kept_T).long().unsqueeze(1))
        served_T = (asking_TE.cumsum(0) + taken_E).gather(1, asked_T).squeeze(1) <= places
        found_T = served_T & ~kept_T
        expert_T, kept_T = torch.where(found_T, asked_T.squeeze(1), expert_T), kept_T | found_T
        taken_E = taken_E.index_add(0, asked_T.squeeze(1), found_T.long())
    return expert_T, kept_T
