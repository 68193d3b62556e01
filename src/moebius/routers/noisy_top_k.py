"""The router that chooses K experts under noise."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.routing import Router, Routing
from moebius.kit.arguments import non_negative, positive_integer
from moebius.routers._normalisation import at_least_float32
from moebius.routers._selecting import expert_counts, top_experts, top_k_selection, whole_k


class NoisyTopK(Router):
    """The k experts with the largest scores after noise see the row; noise only while training.

    h = scores + N(0, 1) · σ,  σ = noise · softplus(noise scores);  weights = softmax over the k largest of h
    load_e = Φ((scores_e − the k-th largest of the other h) / σ_e)

    With k = 1 the weight is the full softmax's probability (the paper's softmax over one value is the constant 1, and
    the gate would have no gradient). `probs` are the softmax of all h, so that losses of them reach every expert; the
    paper's importance is one of `weights`. `aux["load"]` is the probability that the expert would be chosen if its
    noise alone were drawn anew; where there is no noise, as in eval, it is 1 for the chosen and 0 for others.

    Arguments:
        k: how many experts a row has, at least 1; `training.router` may give it a schedule, and it is rounded.
        learned_noise: whether the gate also says the scale of each expert's noise: it then gives 2·E numbers per row.
        noise: factor of that scale, or the scale itself (σ = noise) where it is not learned; at least 0, 0 for none.

    Shapes: scores (T, 2·E), the scores proper first, or (T, E) → Routing with T·k assignments; `aux["load"]` (T, E),
        `aux["assigned"]` (E,).

    Raises:
        ArgumentError: k below 1 or a negative noise.

    Example:
        >>> router = NoisyTopK(2).eval()
        >>> router.gate_outputs(experts=3)
        6
        >>> router(torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0, 5.0]])).weights
        tensor([[0.0000, 0.5000, 0.5000]])

    Reference: Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean 2017, Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer, equations 3 to 5, and 8 to 10 for the load.
    """

    aux_names = ("assigned", "load")

    def __init__(self, k: int, learned_noise: bool = True, noise: float | int = 1.0):
        super().__init__()
        self.k, self.learned_noise = positive_integer("k", k), learned_noise
        self.noise = non_negative("noise", noise)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 for several experts: one expert's weight is its probability."""
        return 1.0 if round(self.k) > 1 else None

    def gate_outputs(self, experts: int) -> int:
        """The scores, and the scale of the noise where it is learned."""
        return 2 * experts if self.learned_noise else experts

    def max_active(self, experts: int) -> int:
        """k."""
        return whole_k(self.k, experts)

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route every row to its k best experts."""
        scores, raw = scores.chunk(2, -1) if self.learned_noise else (scores, None)
        clean, experts, k = at_least_float32(scores), scores.shape[1], self.max_active(scores.shape[1])
        noisy, scale = clean, None
        if self.training and self.noise:
            scale = self.noise * (torch.ones_like(clean) if raw is None else F.softplus(at_least_float32(raw)))
            noisy = clean + torch.randn_like(clean) * scale
        expert_TK = top_experts(noisy.detach(), k)
        probs = noisy.softmax(-1)
        weight_TK = noisy.gather(1, expert_TK).softmax(-1) if k > 1 else probs.gather(1, expert_TK)
        load = torch.zeros_like(probs).scatter(1, expert_TK, 1.0)
        if scale is not None and k < experts:
            load = _chance(clean, noisy, scale, load > 0, k)
        aux = {"assigned": expert_counts(expert_TK.flatten(), experts), "load": load}
        return Routing.from_selection(scores, probs, top_k_selection(expert_TK, weight_TK), aux)


def _chance(
    clean: Float[Tensor, "T E"], noisy: Float[Tensor, "T E"], scale: Float[Tensor, "T E"], chosen: Tensor, k: int
) -> Float[Tensor, "T E"]:
    """The probability that an expert is among the k best if its noise alone is drawn anew."""
    largest = noisy.topk(k + 1, -1).values
    # The k-th largest of the others: for a chosen expert the first not chosen, for another the last chosen.
    others = torch.where(chosen, largest[:, k:], largest[:, k - 1 : k])
    # Scores of −∞ would give ∞ − ∞, and a scale that underflows a gradient of 0 · ∞.
    finite = clean.isfinite() & others.isfinite()
    margin = torch.where(finite, clean, 0) - torch.where(finite, others, 0)
    chance = torch.special.ndtr(margin / scale.clamp(min=torch.finfo(scale.dtype).eps))
    return torch.where(finite, chance, (chosen & (clean > -torch.inf)).to(chance.dtype))
