"""The router of the Switch transformer."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.arguments import above_zero, at_least_zero
from moebius.routers._normalisation import wide
from moebius.routers._selecting import counts
from moebius.routing import Router, Routing, Selection


class Switch(Router):
    """The best expert alone sees the row, weighed by its probability, as long as the expert has room.

    weights_e = softmax(scores)_e where e is the best, else 0;  room for ⌈capacity · T / E⌉ rows per expert

    Rows come in their order; what finds no room is dropped (no expert, weight 0; counted in `aux["dropped"]`), or, with
    `next_best`, goes to the best expert that has room left. In eval there is room for all unless `eval_capacity` says
    otherwise. The scores are multiplied by noise from [1 − jitter, 1 + jitter] while training; the paper multiplies the
    gate's input, which a router does not see.

    Arguments:
        capacity: room in multiples of an even share, above 0; None for no limit.
        jitter: at least 0.
        eval_capacity: the same as capacity, in eval.
        next_best: whether rows without room go on to other experts.

    Shapes: scores (T, E) → Routing with T assignments, one per row.

    Raises:
        ArgumentError: a capacity that is not above 0, or a negative jitter.

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

    def __init__(
        self,
        capacity: float | int | None = 1.25,
        jitter: float | int = 0.01,
        eval_capacity: float | int | None = None,
        next_best: bool = False,
    ):
        super().__init__()
        self.capacity = None if capacity is None else above_zero("capacity", capacity)
        self.jitter = at_least_zero("jitter", jitter)
        self.eval_capacity = None if eval_capacity is None else above_zero("eval_capacity", eval_capacity)
        self.next_best = next_best
        self.rows_independent = eval_capacity is None

    def max_active(self, experts: int) -> int:
        """One."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its best expert with room."""
        rows, experts = scores.shape
        noisy = wide(scores)
        if self.training and self.jitter:
            noisy = noisy * torch.empty_like(noisy).uniform_(1 - self.jitter, 1 + self.jitter)
        probs = noisy.softmax(-1)
        best = probs.argmax(-1)
        capacity = self.capacity if self.training else self.eval_capacity
        room = rows if capacity is None else math.ceil(capacity * rows / experts)
        expert_A, kept_A = _with_room(best, probs.detach(), room, self.next_best)
        weight_A = probs.gather(1, expert_A.unsqueeze(1)).squeeze(1)
        row_A = torch.arange(rows, device=scores.device)
        aux = {"assigned": counts(best, experts), "dropped": (~kept_A).sum()}
        return Routing.from_selection(scores, probs, Selection(row_A, expert_A, weight_A, kept_A), aux)


def _with_room(
    best: Int[Tensor, " T"], probs: Float[Tensor, "T E"], room: int, next_best: bool
) -> tuple[Int[Tensor, " T"], Tensor]:
    """Each row's expert, and whether there was room for it."""
    rows, experts = probs.shape
    expert, kept = best, _in_time(best, torch.ones_like(best, dtype=torch.bool), best.new_zeros(experts), room)
    if not next_best or room >= rows:
        return expert, kept
    order = torch.argsort(probs, dim=-1, descending=True, stable=True)
    for rank in range(1, experts):
        taken = best.new_zeros(experts).index_add(0, expert, kept.long())
        candidate = order[:, rank]
        found = ~kept & _in_time(candidate, ~kept, taken, room)
        expert, kept = torch.where(found, candidate, expert), kept | found
    return expert, kept


def _in_time(expert: Int[Tensor, " T"], asking: Tensor, taken: Int[Tensor, " E"], room: int) -> Tensor:
    """Whether fewer than `room` rows had the expert before, among those taken and those that ask earlier."""
    asked = torch.zeros(len(expert), len(taken), dtype=torch.long, device=expert.device)
    asked = asked.scatter(1, expert.unsqueeze(1), asking.long().unsqueeze(1)).cumsum(0) + taken
    return asking & (asked.gather(1, expert.unsqueeze(1)).squeeze(1) <= room)
