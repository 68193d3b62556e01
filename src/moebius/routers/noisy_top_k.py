"""The router that chooses k experts by noisy scores."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import non_negative, positive_integer
from moebius.routers._selecting import expert_counts, top_experts, top_k_selection, whole_k


class NoisyTopK(Router):
    """The k experts with the largest noisy scores see the row; there is noise only in training.

    h = scores + N(0, 1) · σ,  σ = noise · softplus(noise scores);  weights = softmax over the k largest of h
    load_e = Φ((scores_e − the k-th largest of the other h) / σ_e)

    With k = 1 the weight is the probability of the softmax over all h (the paper's softmax over one value is 1, and
    the gate would have no gradient). `probs` are the softmax of all h, so that their losses reach every expert; the
    paper's importance is a loss of `weights`. `aux["load"]` is the probability that the expert would be chosen if only
    its own noise were sampled again; without noise, as in eval, it is 1 for chosen experts and 0 for others.

    Arguments:
        k: number of experts of a row, at least 1; `training.router` may give it a schedule, whose values are rounded.
        learned_noise: whether the gate also gives the scale of each expert's noise: 2·E numbers per row.
        noise: a factor of that scale, or the scale itself (σ = noise) where it is not learned; at least 0, 0 for none.

    Shapes: scores (T, 2·E), the scores first, then the noise scores; or (T, E) → Routing with T·k assignments;
        `aux["load"]` (T, E), `aux["assigned"]` (E,).

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
        """1 for k above 1; None for k = 1, where the weight is a probability."""
        return 1.0 if round(self.k) > 1 else None

    def gate_outputs(self, experts: int) -> int:
        """2·E, scores and noise scores, where the noise is learned; else E."""
        return 2 * experts if self.learned_noise else experts

    def max_active(self, experts: int) -> int:
        """k."""
        return whole_k(self.k, experts)

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route every row to its k best experts."""
        scores, noise_scores = scores.chunk(2, -1) if self.learned_noise else (scores, None)
        clean, experts, k = at_least_float32(scores), scores.shape[1], self.max_active(scores.shape[1])
        noisy, scale = clean, None
        if self.training and self.noise:
            scale = self.noise * (
                torch.ones_like(clean) if noise_scores is None else F.softplus(at_least_float32(noise_scores))
            )
            noisy = clean + torch.randn_like(clean) * scale
        expert_TK = top_experts(noisy.detach(), k)
        probs = noisy.softmax(-1)
        weight_TK = noisy.gather(1, expert_TK).softmax(-1) if k > 1 else probs.gather(1, expert_TK)
        load = torch.zeros_like(probs).scatter(1, expert_TK, 1.0)
        if scale is not None and k < experts:
            load = _choice_probability(clean, noisy, scale, load > 0, k)
        aux = {"assigned": expert_counts(expert_TK.flatten(), experts), "load": load}
        return Routing.from_selection(scores, probs, top_k_selection(expert_TK, weight_TK), aux)


def _choice_probability(
    clean: Float[Tensor, "T E"], noisy: Float[Tensor, "T E"], scale: Float[Tensor, "T E"], chosen: Tensor, k: int
) -> Float[Tensor, "T E"]:
    """(T, E), the probability that an expert is among the k best if only its own noise is sampled again."""
    largest = noisy.topk(k + 1, -1).values
    # The k-th largest of the other experts: for a chosen expert the first not chosen, else the last chosen.
    others = torch.where(chosen, largest[:, k:], largest[:, k - 1 : k])
    # Scores of −∞ would give ∞ − ∞, and a scale that underflows to 0 a gradient of 0 · ∞.
    finite = clean.isfinite() & others.isfinite()
    margin = torch.where(finite, clean, 0) - torch.where(finite, others, 0)
    probability = torch.special.ndtr(margin / scale.clamp(min=torch.finfo(scale.dtype).eps))
    return torch.where(finite, probability, (chosen & (clean > -torch.inf)).to(probability.dtype))
