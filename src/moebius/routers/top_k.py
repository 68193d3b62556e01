"""The router that chooses K experts."""

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from moebius.arguments import at_least_zero, positive
from moebius.errors import ArgumentError
from moebius.routers._normalisation import normalisation_named, normalised, wide
from moebius.routers._selecting import best, counts, how_many, selected
from moebius.routing import Router, Routing

# Activations that are shares of something, which can be made to sum to 1 over the chosen experts.
_SHARES = ("softmax", "sigmoid")


class TopK(Router):
    """The k experts with the largest scores see the row.

    probs = n(scores);  chosen = the k largest scores
    weights_e = probs_e / Σ_{j chosen} probs_j    renormalised: a softmax over the chosen scores alone (Mixtral), or
    weights_e = probs_e                           not renormalised: the softmax before the choice (OLMoE, Switch)

    With k = 1 the weight is always probs_e: renormalised it would be the constant 1, and the gate would have no
    gradient. With k = E, or more, all experts run, and a softmax makes it the router `soft`. relu, elu and none are
    never renormalised: each of the k largest activations is its expert's weight, and a relu that is 0 does not run.

    Balance without a loss (`bias_rate` u > 0): each expert has a bias, a buffer, and chosen are the k largest
    probs + bias. It counts for the choice alone, never for the weights. After each training batch (in training mode,
    with gradients) it moves by u towards the mean load of all processes: bias_e += u · sign(mean load − load_e).

    Arguments:
        k: how many experts a row has, at least 1; `training.router` may give it a schedule, and it is rounded.
        normalisation: n, one of softmax, sigmoid, relu, elu, none.
        renormalise: whether the weights of several chosen experts sum to 1, for softmax and sigmoid.
        bias_rate: u, at least 0, in units of `probs`; 0 for no bias. 0.001 in both papers, for sigmoid.
        experts: E, needed with a bias.

    Shapes: scores (T, E) → Routing with T·k assignments; `aux["assigned"]` (E,).

    Raises:
        ArgumentError: k below 1, an unknown normalisation, a negative rate, or a rate without `experts`.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 4.0]]).log()
        >>> TopK(2)(scores).weights
        tensor([[0.4286, 0.0000, 0.5714]])
        >>> TopK(2, renormalise=False)(scores).weights
        tensor([[0.3750, 0.0000, 0.5000]])
        >>> TopK(1)(scores).weights
        tensor([[0.0000, 0.0000, 0.5000]])

    Reference: Shazeer et al. 2017, Outrageously Large Neural Networks, equations 3 and 5, without the noise; the bias:
    Wang, Gao, Zhao, Sun, Dai 2024, Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts, Algorithm 1, and
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
        self.k, self.renormalise = positive("k", k), renormalise
        self.normalisation = normalisation_named(normalisation)
        self.bias_rate = at_least_zero("bias_rate", bias_rate)
        if bias_rate and experts is None:
            raise ArgumentError("experts", "a bias per expert needs their number", experts, "experts=8")
        self.experts = experts
        self.register_buffer("bias", torch.zeros(positive("experts", experts)) if bias_rate else None)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 where several are renormalised: one expert's weight is its probability."""
        return 1.0 if self._renormalises() else None

    def gate_outputs(self, experts: int) -> int:
        """One for each expert."""
        if self.bias is not None and experts != len(self.bias):
            rule = f"the router's bias was made for {len(self.bias)} experts"
            raise ArgumentError("experts", rule, experts, f"experts={experts}")
        return experts

    def max_active(self, experts: int) -> int:
        """k."""
        return how_many(self.k, experts)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its k best experts."""
        probs, log_probs = normalised(scores, self.normalisation)
        expert_TK = best(self._ranked(wide(scores.detach()), probs.detach()), self.max_active(scores.shape[1]))
        # In log space, for sigmoids whose sum underflows.
        chosen = log_probs.gather(1, expert_TK).softmax(-1) if self._renormalises() else probs.gather(1, expert_TK)
        selection = selected(expert_TK, chosen)
        assigned = counts(selection.expert_A, scores.shape[1], selection.kept_A)
        if self.bias is not None and self.training and torch.is_grad_enabled():
            self._move_bias(self.bias, assigned)
        return Routing.from_selection(
            scores, probs, selection, {"assigned": assigned}, distribution=self.normalisation == "softmax"
        )

    def _renormalises(self) -> bool:
        return self.renormalise and round(self.k) > 1 and self.normalisation in _SHARES

    def _ranked(self, scores: Float[Tensor, "T E"], probs: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """What the largest are chosen of: the scores, which tie less often than their activations, or these biased."""
        if self.bias is None:
            return scores
        return torch.where(scores > -torch.inf, probs + self.bias.to(probs.dtype), -torch.inf)

    @torch.no_grad()
    def _move_bias(self, bias: Tensor, assigned: Float[Tensor, " E"]) -> None:
        load = assigned.clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(load)
        bias += self.bias_rate * (load.mean() - load).sign().to(bias.dtype)
