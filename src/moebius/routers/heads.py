"""Several gate heads over one pool of experts."""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing, Selection
from moebius.kit.arguments import positive_integer
from moebius.routers._normalisation import safe_log

_COUNTS = ("assigned", "dropped")
_CHANCES = ("load", "open")


class Heads(Router):
    """Routes every row several times, once for each head of the gate, and runs the experts once.

    weights_e = Σ_h w_he;  probs_e = mean_h p_he;  w_h, p_h = router(scores of head h)

    The gate is one trunk whose last layer has all heads: head h's numbers are block h of the row. How the heads'
    outputs merge is the combine's business: `weighted_sum` adds them up, `head_mean` takes their mean and
    `head_maximum` the largest of each output. One head is the router itself.

    Of `aux`, counts (`assigned`, `dropped`) are the heads' sums, probabilities (`load`, `open`) those that any head
    chooses the expert, `selectors` stand one head's after another's; other keys are left out. State that the router
    keeps, such as a balance bias, is the heads' own in common: it counts the rows of them all, and moves once a step.

    Arguments:
        router: routes each head's scores; all rows of one head at a time.
        heads: H, at least 1.

    Shapes: scores (T, H·G), where the router takes (T, G) → Routing of T rows and E experts with `head_weights`
        (T, H, E, C); with a selection of T·E assignments where the router selects, kept where any head keeps it.

    Raises:
        ArgumentError: no head.

    Example:
        >>> from moebius.routers import Argmax
        >>> routing = Heads(Argmax(), heads=2)(torch.tensor([[0.0, 1.0, 2.0, 9.0, 0.0, 0.0]]))
        >>> routing.weights
        tensor([[1., 0., 1.]])
        >>> routing.head_weights[0, :, :, 0]
        tensor([[0., 0., 1.],
                [1., 0., 0.]])

    Reference: Ma, Zhao, Yi, Chen, Hong, Chi 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, for several gates over the same experts; theirs have a task each, ours merge into one output, as
    study 3's `two-gates-sum` and `two-gates-max`.
    """

    def __init__(self, router: Router, heads: int):
        super().__init__()
        self.router, self.heads = router, positive_integer("heads", heads)
        self.rows_sum_to = None if router.rows_sum_to is None else heads * router.rows_sum_to
        self.rows_independent = router.rows_independent
        self.trains_gate = router.trains_gate
        self.interchangeable = router.interchangeable
        self.needs_keys = router.needs_keys

    def gate_outputs(self, experts: int) -> int:
        """As many as the router wants, for each head."""
        return self.heads * self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """As many as if no two heads chose the same."""
        return min(experts, self.heads * self.router.max_active(experts))

    def forward(self, scores: Float[Tensor, "T G"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row by every head."""
        given = () if keys is None else (keys,)
        # One head after another: a router whose rows compete compares a head's rows with each other only.
        routings = [self.router(block, *given) for block in scores.chunk(self.heads, -1)]
        if self.heads == 1:
            return routings[0]
        weights = torch.stack([one.weights for one in routings]).sum(0)
        return Routing(
            torch.stack([one.scores for one in routings]).mean(0),
            torch.stack([one.probs for one in routings]).mean(0),
            weights,
            safe_log(weights),
            _together([one.selection for one in routings], weights),
            head_weights=torch.cat([_full(one) for one in routings], 1),
            aux=_merged([one.aux for one in routings]),
            distribution=all(one.distribution for one in routings),
            straight_through=any(one.straight_through for one in routings),
        )


def _full(routing: Routing) -> Float[Tensor, "T H E C"]:
    return routing.weights[:, None, :, None] if routing.head_weights is None else routing.head_weights


def _together(selections: Sequence[Selection | None], weights: Float[Tensor, "T E"]) -> Selection | None:
    """All pairs of row and expert, kept where some head keeps them; None where some head has all experts run."""
    rows, experts = weights.shape
    keeping = torch.zeros(rows * experts, dtype=torch.long, device=weights.device)
    for selection in selections:
        if selection is None:
            return None
        place_A = selection.row_A * experts + selection.expert_A
        keeping = keeping.index_add(0, place_A, selection.kept_A.long())
    place_A = torch.arange(rows * experts, device=weights.device)
    return Selection(place_A // experts, place_A % experts, weights.flatten(), keeping > 0)


def _merged(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    merged = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name in _COUNTS:
            merged[name] = torch.stack(values).sum(0)
        elif name in _CHANCES:
            # Each head has a noise of its own, so that their choices are independent.
            merged[name] = reduce(lambda one, other: one + other - one * other, values)
        elif name == "selectors":
            merged[name] = torch.cat(values, 1)
    return merged
