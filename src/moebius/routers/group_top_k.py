"""The router that chooses the k best experts of the best groups."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moebius.kit.arguments import positive_integer, positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers.top_k import TopK


class GroupTopK(TopK):
    """The k experts with the largest scores within the best groups of experts see the row; weights may be scaled.

    probs = n(scores);  affinity_e = probs_e + bias_e
    score of a group = the sum of its `group_best` largest affinities
    chosen = the k largest affinities among the experts of the `open_groups` groups with the largest scores
    weights_e = scale · probs_e / Σ_{j chosen} probs_j    renormalised, or
    weights_e = scale · probs_e                           not renormalised

    Where a group of experts is on one device or node, a row is sent to at most `open_groups` of them. With one group
    and a scale of 1 it is `TopK`, whose rules hold here too: the weight of one expert alone is never renormalised, and
    an expert with a weight of 0 does not run. Where fewer than k experts are open, these run.

    Arguments:
        k: number of experts of a row, at least 1.
        groups: number of groups; equally many experts, in their order, are in each.
        open_groups: in how many groups the experts of a row may be, from 1 to `groups`.
        group_best: how many affinities of a group make its score, at least 1: 1 in DeepSeek-V2, 2 in DeepSeek-V3.
        normalisation: n, one of softmax (DeepSeek-V2), sigmoid (V3), relu, elu, none.
        renormalise: whether the weights of several chosen experts are scaled to sum to `scale`; for softmax and
            sigmoid.
        scale: factor of all weights, above 0; 2.5 in DeepSeek-V3.
        bias_rate: u, at least 0, by which `step` moves the bias, as in `TopK`; 0 for a bias that stays as it is.
        experts: E, which makes the bias (a buffer in float32, of zeros); None for no bias.

    Shapes: scores (T, E) → Routing with T·k assignments; `aux["assigned"]` (E,).

    Raises:
        ArgumentError: a number outside its range, an unknown normalisation, a rate without `experts`, or experts that
            cannot be divided into the groups.

    Example:
        >>> scores = torch.tensor([[0.40, 0.05, 0.30, 0.25]]).log()
        >>> GroupTopK(2, groups=2, open_groups=1, group_best=2, normalisation="softmax", scale=2.0)(scores).weights
        tensor([[0.0000, 0.0000, 1.0909, 0.9091]])
        >>> GroupTopK(2, groups=2, open_groups=1, group_best=1, normalisation="softmax")(scores).weights
        tensor([[0.8889, 0.1111, 0.0000, 0.0000]])

    Reference: DeepSeek-AI 2024, DeepSeek-V2, section 2.2.2 (device-limited routing); DeepSeek-AI 2024, DeepSeek-V3
    Technical Report, section 2.1.2 (equations 12 to 16, node-limited routing). The scale is in their released models.
    """

    def __init__(
        self,
        k: int,
        groups: int = 1,
        open_groups: int = 1,
        group_best: int = 2,
        normalisation: str = "sigmoid",
        renormalise: bool = True,
        scale: float | int = 1.0,
        bias_rate: float | int = 0.0,
        experts: int | None = None,
    ):
        super().__init__(k, normalisation, renormalise, bias_rate, experts)
        self.groups, self.open_groups = positive_integer("groups", groups), positive_integer("open_groups", open_groups)
        self.group_best, self.scale = positive_integer("group_best", group_best), positive_number("scale", scale)
        if open_groups > groups:
            raise ArgumentError("open_groups", f"must not exceed the {groups} groups", open_groups, "open_groups=1")
        self.interchangeable = open_groups == groups
        if experts is not None:
            self._check_groups(experts)
            self._make_bias(experts)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """`scale` where weights are renormalised, else None."""
        return self.scale if self._renormalises() else None

    def gate_outputs(self, experts: int) -> int:
        """E."""
        self._check_groups(experts)
        return super().gate_outputs(experts)

    def max_active(self, experts: int) -> int:
        """k, or the number of experts in the open groups where that is less."""
        return min(super().max_active(experts), self.open_groups * max(experts // self.groups, 1))

    def _weigh(
        self, probs: Float[Tensor, "T E"], log_probs: Float[Tensor, "T E"], expert_TK: Int[Tensor, "T K"]
    ) -> Float[Tensor, "T K"]:
        weight_TK = super()._weigh(probs, log_probs, expert_TK)
        return weight_TK if self.scale == 1 else weight_TK * self.scale

    def _rank(self, scores: Float[Tensor, "T E"], probs: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """Scores, or with a bias probs + bias; −∞ for the experts of closed groups."""
        self._check_groups(scores.shape[1])
        ranking = super()._rank(scores, probs)
        if self.open_groups == self.groups:
            return ranking
        affinities = probs if self.bias is None else probs + self.bias
        return torch.where(self._find_open(affinities, scores > -torch.inf), ranking, -torch.inf)

    def _find_open(self, affinities: Float[Tensor, "T E"], is_possible: Bool[Tensor, "T E"]) -> Bool[Tensor, "T E"]:
        """Whether an expert is in one of the open groups; a group without a possible expert comes last."""
        size = affinities.shape[1] // self.groups
        grouped, is_possible = (values.unflatten(1, (self.groups, size)) for values in (affinities, is_possible))
        group_scores = grouped.topk(min(self.group_best, size), -1).values.sum(-1)
        group_scores = torch.where(is_possible.any(-1), group_scores, -torch.inf)
        open_groups = group_scores.topk(self.open_groups, -1).indices
        is_open = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, open_groups, True)
        return is_open.repeat_interleave(size, 1)

    def _check_groups(self, experts: int) -> None:
        if experts % self.groups:
            rule = f"cannot divide {experts} experts into equal groups"
            raise ArgumentError("groups", rule, self.groups, "groups=1")
