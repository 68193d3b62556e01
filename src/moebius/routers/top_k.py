"""The router that chooses K experts."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from moebius.core.activation_checkpointing import is_replay, will_be_replayed
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import non_negative, positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32, normalisation_named, normalise
from moebius.routers._selecting import expert_counts, top_experts, top_k_selection, whole_k

# Activations that are shares of something, which can be made to sum to 1 over the chosen experts.
_SHARES = ("softmax", "sigmoid")
# More micro-batches than anyone accumulates: a bias that has not moved after so many was forgotten.
_FORGOTTEN = 1000


class TopK(Router):
    """The k experts with the largest scores see the row.

    probs = n(scores);  chosen = the k largest scores
    weights_e = probs_e / Σ_{j chosen} probs_j    renormalised: a softmax over the chosen scores alone (Mixtral), or
    weights_e = probs_e                           not renormalised: the softmax before the choice (OLMoE, Switch)

    With k = 1 the weight is always probs_e: renormalised it would be the constant 1, and the gate would have no
    gradient. With k = E, or more, all experts run, and a softmax makes it the router `soft`. relu, elu and none are
    never renormalised: each of the k largest activations is its expert's weight, and a relu that is 0 does not run.

    Balance without a loss (`bias_rate` u > 0): each expert has a bias, a buffer, and chosen are the k largest
    probs + bias. It counts for the choice alone, never for the weights. Forwards (in training mode, with gradients)
    only count each expert's rows. `step` moves the bias by u towards the mean load since the last step, of all
    micro-batches and processes: bias_e += u · sign(mean load − load_e). `mb.fit` and recipes call it; a loop of your
    own has one line more:

        optimizer.step()
        mb.step_routers(model)

    and where a tool owns the loop, the optimizer does it:

        optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))

    The bias stays float32 in a model of any number format: 0.001 is less than what bf16 tells apart.

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

    aux_names = ("assigned",)
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
        self.k, self.renormalise = positive_integer("k", k), renormalise
        self.normalisation = normalisation_named(normalisation)
        self.bias_rate = non_negative("bias_rate", bias_rate)
        if bias_rate and experts is None:
            raise ArgumentError("experts", "a bias per expert needs their number", experts, "experts=8")
        self.experts = experts
        bias = torch.zeros(positive_integer("experts", experts), dtype=torch.float32) if bias_rate else None
        self.register_buffer("bias", bias)
        # No buffer: data-parallel training gives every process the first one's buffers in each forward.
        self._counted = torch.zeros(0 if bias is None else len(bias), dtype=torch.long)
        self._forwards = 0

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
        return whole_k(self.k, experts)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to its k best experts."""
        probs, log_probs = normalise(scores, self.normalisation)
        expert_TK = top_experts(
            self._ranked(at_least_float32(scores.detach()), probs.detach()), self.max_active(scores.shape[1])
        )
        # In log space, for sigmoids whose sum underflows.
        chosen = log_probs.gather(1, expert_TK).softmax(-1) if self._renormalises() else probs.gather(1, expert_TK)
        selection = top_k_selection(expert_TK, chosen)
        assigned = expert_counts(selection.expert_A, scores.shape[1], selection.kept_A)
        if self.bias is not None and self.training and _counts():
            self._count(self.bias, assigned)
        return Routing.from_selection(
            scores, probs, selection, {"assigned": assigned}, distribution=self.normalisation == "softmax"
        )

    def _renormalises(self) -> bool:
        return self.renormalise and round(self.k) > 1 and self.normalisation in _SHARES

    def _ranked(self, scores: Float[Tensor, "T E"], probs: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """What the largest are chosen of: the scores, which tie less often than their activations, or these biased."""
        if self.bias is None:
            return scores
        return torch.where(scores > -torch.inf, probs + self.bias, -torch.inf)

    @torch.no_grad()
    def step(self) -> None:
        """Move the bias towards the mean load of all processes, and count anew; where nothing was counted it stays."""
        if self.bias is None:
            return
        self._settle(self.bias)
        load = self._counted
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(load)
        # E times the distance from the mean: a whole number, so that equal loads have none.
        self.bias += self.bias_rate * (load.sum() - len(load) * load).sign().to(self.bias)
        load.zero_()
        self._forwards = 0

    @torch.no_grad()
    def _count(self, bias: Tensor, assigned: Float[Tensor, " E"]) -> None:
        self._settle(bias)
        self._counted.add_(assigned.long())
        if torch.compiler.is_compiling():
            return
        self._forwards += 1
        if self._forwards == _FORGOTTEN:
            warnings.warn(
                f"TopK(bias_rate={self.bias_rate}) counted {_FORGOTTEN} forwards and its bias did not move\n"
                "  fix: mb.step_routers(model) after each optimizer.step()",
                stacklevel=2,
            )

    def _settle(self, bias: Tensor) -> None:
        """Keep the bias in float32 and the counts on its device, also where a tool has put another tensor there."""
        if bias.dtype != torch.float32:
            self.bias = bias.float()
        if self._counted.is_meta and not bias.is_meta:
            self._counted = torch.zeros_like(self._counted, device=bias.device)
        elif self._counted.device != bias.device:
            self._counted = self._counted.to(bias.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> "TopK":
        """Moves to devices hold for the bias; casts do not, so that its values never pass through another format."""
        before = self.bias
        super()._apply(fn, *arguments, **options)
        if self.bias is not None and before is not None:
            if self.bias.dtype != before.dtype:
                self.bias = before.to(self.bias.device)
            elif before.is_meta and not self.bias.is_meta:
                self.bias.zero_()
            self._settle(self.bias)
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        if self.bias is not None:
            self._settle(self.bias)


def _counts() -> bool:
    """Whether a forward that happens now is one of a training, for the first time.

    A compiled block inside an activation checkpoint counts in the replay too: all its loads double, and with them their
    mean.
    """
    if is_replay() or torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return False
    return torch.is_grad_enabled() or will_be_replayed()
