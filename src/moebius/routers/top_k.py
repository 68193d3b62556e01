"""The router that chooses K experts."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.arguments import at_least_zero
from moebius.errors import ArgumentError
from moebius.routers._normalisation import normalisation_named, normalised, wide
from moebius.routers._selecting import counts, selected
from moebius.routing import Router, Routing


class TopK(Router):
    """The k experts with the largest scores see the row.

    chosen = the k largest of scores + bias
    weights_e = exp(s_e) / Σ_{j chosen} exp(s_j)   renormalised: softmax after the choice (Mixtral), or
    weights_e = probs_e = softmax(scores)_e        not renormalised: softmax before the choice (OLMoE, Switch)

    With k = 1 the weight is always the full softmax's probability: renormalised it would be the constant 1, and the
    gate would have no gradient. With k = E, or more, all experts run, as under `Soft`.

    Balance without a loss (`bias_rate` u > 0): each expert has a bias that counts for the choice alone, never for the
    weights, and after every training batch moves by u towards the mean load: b_e += u · sign(mean load − load_e).

    Arguments:
        k: how many experts a row has, at least 1; `training.router` may give it a schedule.
        normalisation: of the scores; with sigmoid, relu, elu or none each expert's weight is its own activation.
        renormalise: whether the weights of several chosen experts sum to 1, for softmax and sigmoid.
        bias_rate: u, in units of the scores; 0 for no bias.
        experts: E, needed with a bias.

    Shapes: scores (T, E) → Routing with T·k assignments.

    Raises:
        ArgumentError: k below 1, an unknown normalisation, a negative rate, or a rate without `experts`.

    Example:
        >>> TopK(2)(torch.tensor([[2.0, 1.0, 2.0]])).weights
        tensor([[0.5000, 0.0000, 0.5000]])
        >>> TopK(1)(torch.tensor([[1.0, 1.0, 1.0]])).weights[0, 0]
        tensor(0.3333)

    Reference: Shazeer et al. 2017, Outrageously Large Neural Networks, equations 3 and 5, without the noise; the bias:
    DeepSeek-AI 2024, DeepSeek-V3 Technical Report, section 2.1.2.
    """

    bias: Tensor | None

    def __init__(
        self,
        k: int,
        normalisation: str = "softmax",
        renormalise: bool = True,
        bias_rate: float | int = 0.0,
        experts: int | None = None,
    ):
        super().__init__()
        if isinstance(k, bool) or k < 1:
            raise ArgumentError("k", "needs a whole number of at least 1", k, "k: 2")
        self.k, self.renormalise = k, renormalise
        self.normalisation = normalisation_named(normalisation)
        self.bias_rate = at_least_zero("bias_rate", bias_rate)
        if bias_rate and experts is None:
            raise ArgumentError(
                "experts", "a bias per expert needs their number", experts, "TopK(2, bias_rate=1e-3, experts=8)"
            )
        self.register_buffer("bias", torch.zeros(experts or 0) if bias_rate else None)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 where several are renormalised: one expert's weight is its probability."""
        return 1.0 if self.renormalise and round(self.k) > 1 and self.normalisation in ("softmax", "sigmoid") else None

    def max_active(self, experts: int) -> int:
        """k."""
        return min(round(self.k), experts)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its k best experts."""
        experts = scores.shape[1]
        k = min(round(self.k), experts)
        probs, _ = normalised(scores, self.normalisation)
        wide_scores = wide(scores)
        choice = wide_scores.detach() if self.bias is None else wide_scores.detach() + self.bias.to(wide_scores.dtype)
        expert_TK = choice.topk(k, -1).indices
        weight_TK = probs.gather(1, expert_TK)
        if k > 1 and self.renormalise and self.normalisation == "softmax":
            weight_TK = wide_scores.gather(1, expert_TK).softmax(-1)
        elif k > 1 and self.renormalise and self.normalisation == "sigmoid":
            weight_TK = weight_TK / weight_TK.sum(-1, keepdim=True)
        assigned = counts(expert_TK.flatten(), experts)
        if self.bias is not None and self.training:
            self._move_bias(assigned)
        return Routing.from_selection(
            scores, probs, selected(expert_TK, weight_TK), {"assigned": assigned}, self.normalisation == "softmax"
        )

    @torch.no_grad()
    def _move_bias(self, assigned: Float[Tensor, " E"]) -> None:
        assert self.bias is not None
        load = assigned.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(load)
        self.bias += self.bias_rate * (load.mean() - load).sign()
