"""Several gate heads over one pool of experts."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.routing import Router, Routing, Selection
from moebius.core.safe_log import safe_log
from moebius.kit.arguments import positive_integer


def _add(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0)


def _probability_of_any(values: list[Float[Tensor, "T E"]]) -> Float[Tensor, "T E"]:
    """1 − Π_h (1 − P_h): the heads' noises are independent, and so are their choices."""
    return reduce(lambda first, second: first + second - first * second, values)


def _concatenate(values: list[Float[Tensor, "T K E"]]) -> Float[Tensor, "T HK E"]:
    return torch.cat(values, 1)


# Key of `aux` → how the values of several heads merge.
_MERGES: Mapping[str, Callable[[list[Tensor]], Tensor]] = {
    "assigned": _add,
    "dropped": _add,
    "load": _probability_of_any,
    "open": _probability_of_any,
    "selectors": _concatenate,
}


class Heads(Router):
    """Routes every row several times, once for each head of the gate, and runs the experts once.

    weights_e = Σ_h w_he;  probs_e = mean_h p_he;  w_h, p_h = router(scores of head h)

    The gate is one trunk whose last layer has all heads: block h of a row of its output belongs to head h. The combine
    merges the heads' outputs: `weighted_sum` adds them, `head_mean` takes their mean and `head_maximum` the largest of
    each output. With one head the result is the router's.

    In `aux`, counts (`assigned`, `dropped`) are sums over heads, `load` and `open` are the probability that any head
    chooses the expert, and `selectors` are concatenated; other keys are left out. The heads share the router's state,
    such as a balance bias: it counts the rows of all heads, and moves once a step.

    Arguments:
        router: routes the scores of each head, all rows of one head in one call.
        heads: H, at least 1.

    Shapes: scores (T, H·G), where the router takes (T, G) → Routing of T rows and E experts with `head_weights` (T, H,
        E, C); with a selection of T·E assignments where the router selects, each kept where any head keeps it.

    Raises:
        ArgumentError: `heads` below 1.

    Example:
        >>> from moebius.routers import Argmax
        >>> routing = Heads(Argmax(), heads=2)(torch.tensor([[0.0, 1.0, 2.0, 9.0, 0.0, 0.0]]))
        >>> routing.weights
        tensor([[1., 0., 1.]])
        >>> routing.head_weights[0, :, :, 0]
        tensor([[0., 0., 1.],
                [1., 0., 0.]])

    Reference: Ma, Zhao, Yi, Chen, Hong, Chi 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, for several gates over the same experts; in the paper each has its task, here they merge into
    one output, as study 3's `two-gates-sum` and `two-gates-max`.
    """

    def __init__(self, router: Router, heads: int):
        super().__init__()
        self.router, self.heads = router, positive_integer("heads", heads)
        self.rows_sum_to = None if router.rows_sum_to is None else heads * router.rows_sum_to
        self.rows_independent = router.rows_independent
        self.trains_gate = router.trains_gate
        self.interchangeable = router.interchangeable
        self.needs_keys = router.needs_keys
        self.aux_names = tuple(name for name in router.aux_names if heads == 1 or name in _MERGES)

    def gate_outputs(self, experts: int) -> int:
        """H times what the router takes from the gate."""
        return self.heads * self.router.gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """The sum over heads, at most E: no two heads need choose the same expert."""
        return min(experts, self.heads * self.router.max_active(experts))

    def forward(self, scores: Float[Tensor, "T G"], keys: Int[Tensor, " T"] | None = None) -> Routing:
        """Route every row by every head."""
        more = () if keys is None else (keys,)
        # One head after another: a router whose rows compete then compares rows of the same head only.
        routings = [self.router(block, *more) for block in scores.chunk(self.heads, -1)]
        if self.heads == 1:
            return routings[0]
        weights = torch.stack([routing.weights for routing in routings]).sum(0)
        return Routing(
            torch.stack([routing.scores for routing in routings]).mean(0),
            torch.stack([routing.probs for routing in routings]).mean(0),
            weights,
            safe_log(weights),
            _merge_selections([routing.selection for routing in routings], weights),
            head_weights=torch.cat([_head_weights(routing) for routing in routings], 1),
            aux=_merge_aux([routing.aux for routing in routings]),
            distribution=all(routing.distribution for routing in routings),
            straight_through=any(routing.straight_through for routing in routings),
        )


def _head_weights(routing: Routing) -> Float[Tensor, "T H E C"]:
    """The routing's `head_weights`; its `weights` as those of one head and one class where it has none."""
    return routing.weights[:, None, :, None] if routing.head_weights is None else routing.head_weights


def _merge_selections(selections: Sequence[Selection | None], weights: Float[Tensor, "T E"]) -> Selection | None:
    """All T·E pairs of row and expert, kept where any head keeps them; None where a head has no selection."""
    rows, experts = weights.shape
    keeping_heads_A = torch.zeros(rows * experts, dtype=torch.long, device=weights.device)
    for selection in selections:
        if selection is None:
            return None
        place_A = selection.row_A * experts + selection.expert_A
        keeping_heads_A = keeping_heads_A.index_add(0, place_A, selection.kept_A.long())
    place_A = torch.arange(rows * experts, device=weights.device)
    return Selection(place_A // experts, place_A % experts, weights.flatten(), keeping_heads_A > 0)


def _merge_aux(auxes: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: merge([aux[name] for aux in auxes]) for name, merge in _MERGES.items() if name in auxes[0]}
