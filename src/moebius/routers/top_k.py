"""The router that chooses the k best experts."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from moebius.core.activation_checkpointing import is_replay, will_be_replayed
from moebius.core.precision import at_least_float32
from moebius.core.processes import exchange, is_distributed
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import non_negative, positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import normalisation_named, normalise
from moebius.routers._selecting import expert_counts, top_experts, top_k_selection, whole_k

# Normalisations with positive values, which can be scaled to sum to 1 over the chosen experts.
_RENORMALISABLE = ("softmax", "sigmoid")
# More micro-batches than a step accumulates: after this number without a `step` there is a warning.
_FORWARDS_BEFORE_WARNING = 1000


class TopK(Router):
    """The k experts with the largest scores see the row.

    probs = n(scores);  chosen = the k largest scores
    weights_e = probs_e / Σ_{j chosen} probs_j    renormalised: a softmax over the chosen scores alone (Mixtral), or
    weights_e = probs_e                           not renormalised: the softmax before the choice (OLMoE, Switch)

    With k = 1 the weight is always probs_e: renormalised it would be the constant 1, and the gate would have no
    gradient. With k = E or more all experts run, and with a softmax the result is that of the router `soft`. relu, elu
    and none are never renormalised: each of the k largest activations is its expert's weight, and an expert with a relu
    of 0 does not run.

    Balance without a loss (`bias_rate` u > 0): each expert has a bias, a buffer, and the k experts with the largest
    probs + bias are chosen. The bias affects only the choice, never the weights. Forwards (in training mode, with
    gradients) only count each expert's rows. `step` moves the bias by u according to the loads since the last step, of
    all micro-batches and processes: bias_e += u · sign(mean load − load_e). `mb.fit` and recipes call it; your own
    training loop needs one more line:

        optimizer.step()
        mb.step_routers(model)

    and where a tool has the loop, the optimizer calls it:

        optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))

    The bias stays float32 in a model of any number format: bf16 cannot represent changes of 0.001.

    Arguments:
        k: number of experts of a row, at least 1; `training.router` may give it a schedule, whose values are rounded.
        normalisation: n, one of softmax, sigmoid, relu, elu, none.
        renormalise: whether the weights of several chosen experts are scaled to sum to 1; for softmax and sigmoid.
        bias_rate: u, at least 0, in units of `probs`; 0 for no bias. Both papers use 0.001, for sigmoid.
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
        self._make_bias(experts if bias_rate else None)
        self._forwards = 0

    def _make_bias(self, experts: int | None) -> None:
        """A bias of zeros for each expert, and no counts; None for no bias."""
        bias = None if experts is None else torch.zeros(positive_integer("experts", experts), dtype=torch.float32)
        self.register_buffer("bias", bias)
        # Not a buffer: in each forward data-parallel training copies the buffers of the first process to all others.
        self._counted = torch.zeros(0 if bias is None else len(bias), dtype=torch.long)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 where weights are renormalised, else None."""
        return 1.0 if self._renormalises() else None

    def gate_outputs(self, experts: int) -> int:
        """E."""
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
        ranking = self._rank(at_least_float32(scores.detach()), probs.detach())
        expert_TK = top_experts(ranking, self.max_active(scores.shape[1]))
        selection = top_k_selection(expert_TK, self._weigh(probs, log_probs, expert_TK))
        assigned = expert_counts(selection.expert_A, scores.shape[1], selection.kept_A)
        if self.bias is not None and self.bias_rate and self.training and _is_counted():
            self._count(self.bias, assigned)
        return Routing.from_selection(
            scores, probs, selection, {"assigned": assigned}, distribution=self.normalisation == "softmax"
        )

    def _weigh(
        self, probs: Float[Tensor, "T E"], log_probs: Float[Tensor, "T E"], expert_TK: Int[Tensor, "T K"]
    ) -> Float[Tensor, "T K"]:
        """The weights of the chosen experts."""
        # Renormalised in log space: a sum of small sigmoids may underflow.
        return log_probs.gather(1, expert_TK).softmax(-1) if self._renormalises() else probs.gather(1, expert_TK)

    def _renormalises(self) -> bool:
        return self.renormalise and round(self.k) > 1 and self.normalisation in _RENORMALISABLE

    def _rank(self, scores: Float[Tensor, "T E"], probs: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        """The values to rank: scores, which tie less often than activations, or with a bias probs + bias."""
        if self.bias is None:
            return scores
        return torch.where(scores > -torch.inf, probs + self.bias, -torch.inf)

    @torch.no_grad()
    def step(self) -> None:
        """Move the bias by the loads counted in all processes, and set the counts to 0; without counts it stays."""
        if self.bias is None:
            return
        self._restore_bias(self.bias)
        load = self._counted
        if is_distributed():
            with exchange():
                distributed.all_reduce(load)
        # E times the difference from the mean load: a whole number, so that it is exactly 0 for equal loads.
        self.bias += self.bias_rate * (load.sum() - len(load) * load).sign().to(self.bias)
        load.zero_()
        self._forwards = 0

    @torch.no_grad()
    def _count(self, bias: Tensor, assigned: Float[Tensor, " E"]) -> None:
        """Add a forward's assignments to the counts; warn where `step` is never called."""
        self._restore_bias(bias)
        self._counted.add_(assigned.long())
        if torch.compiler.is_compiling():
            return
        self._forwards += 1
        if self._forwards == _FORWARDS_BEFORE_WARNING:
            warnings.warn(
                f"TopK(bias_rate={self.bias_rate}) counted {self._forwards} forwards and its bias did not move\n"
                "  fix: mb.step_routers(model) after each optimizer.step()",
                stacklevel=2,
            )

    def _restore_bias(self, bias: Tensor) -> None:
        """Make the bias float32 and move the counts to its device, if a tool has replaced the bias."""
        if bias.dtype != torch.float32:
            self.bias = bias.float()
        if self._counted.is_meta and not bias.is_meta:
            self._counted = torch.zeros_like(self._counted, device=bias.device)
        elif self._counted.device != bias.device:
            self._counted = self._counted.to(bias.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> "TopK":
        """Apply device moves to the bias but not casts, so that its values never pass through another number format."""
        before = self.bias
        super()._apply(fn, *arguments, **options)
        if self.bias is not None and before is not None:
            if self.bias.dtype != before.dtype:
                self.bias = before.to(self.bias.device)
            elif before.is_meta and not self.bias.is_meta:
                self.bias.zero_()
            self._restore_bias(self.bias)
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        if self.bias is not None:
            self._restore_bias(self.bias)


def _is_counted() -> bool:
    """Whether the present forward counts rows: a forward of training, and not the replay of an activation checkpoint.

    A compiled block inside an activation checkpoint counts in the replay too: all its loads double, and so does their
    mean.
    """
    if is_replay() or torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return False
    return torch.is_grad_enabled() or will_be_replayed()
