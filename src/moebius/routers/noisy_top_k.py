"""The router that chooses K experts under noise."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.arguments import at_least_zero
from moebius.errors import ArgumentError
from moebius.routers._normalisation import wide
from moebius.routers._selecting import counts, selected
from moebius.routing import Router, Routing


class NoisyTopK(Router):
    """The k experts with the largest scores after noise see the row; noise only while training.

    h = scores + N(0, 1) · σ,  σ = noise · softplus(noise scores);  weights = softmax over the k largest of h

    With k = 1 the weight is the full softmax's probability (the paper's softmax over one value is the constant 1, and
    the gate would have no gradient). `probs` are the softmax of h. `aux["load"]` is the probability that the expert
    would be chosen if its noise alone were drawn anew, Φ((s_e − the k-th largest of the other h) / σ_e); without noise
    it is 1 for the chosen and 0 for others.

    Arguments:
        k: how many experts a row has, at least 1.
        learned_noise: whether the gate also says the scale of each expert's noise: it then gives 2·E numbers per row.
        noise: factor of that scale, or the scale itself (σ = noise) where it is not learned; 0 for none.

    Shapes: scores (T, 2·E), the scores proper first, or (T, E) → Routing with T·k assignments.

    Raises:
        ArgumentError: k below 1 or a negative noise.

    Example:
        >>> router = NoisyTopK(1, learned_noise=False).eval()
        >>> router(torch.tensor([[2.0, 1.0]])).selection.expert_A
        tensor([0])

    Reference: Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean 2017, Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer, equations 3 to 5, and 8 to 10 for the load.
    """

    def __init__(self, k: int, learned_noise: bool = True, noise: float | int = 1.0):
        super().__init__()
        if isinstance(k, bool) or k < 1:
            raise ArgumentError("k", "needs a whole number of at least 1", k, "k: 2")
        self.k, self.learned_noise, self.noise = k, learned_noise, at_least_zero("noise", noise)

    @property
    def rows_sum_to(self) -> float | None:  # type: ignore[override]
        """1 for several experts: one expert's weight is its probability."""
        return 1.0 if round(self.k) > 1 else None

    def gate_outputs(self, experts: int) -> int:
        """The scores, and the scale of the noise where it is learned."""
        return 2 * experts if self.learned_noise else experts

    def max_active(self, experts: int) -> int:
        """k."""
        return min(round(self.k), experts)

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route every row to its k best experts."""
        clean, raw = scores.chunk(2, -1) if self.learned_noise else (scores, None)
        scores, experts = clean, clean.shape[1]
        clean = wide(clean)
        k = min(round(self.k), experts)
        scale = self.noise * (torch.ones_like(clean) if raw is None else F.softplus(wide(raw)))
        noisy = clean + torch.randn_like(clean) * scale if self.training and self.noise else clean
        expert_TK = noisy.detach().topk(k, -1).indices
        probs = noisy.softmax(-1)
        weight_TK = noisy.gather(1, expert_TK).softmax(-1) if k > 1 else probs.gather(1, expert_TK)
        chosen = torch.zeros_like(probs).scatter(1, expert_TK, 1.0)
        load = self._load(clean, noisy, scale, chosen, k) if self.training and self.noise and k < experts else chosen
        aux = {"assigned": counts(expert_TK.flatten(), experts), "load": load}
        return Routing.from_selection(scores, probs, selected(expert_TK, weight_TK), aux)

    @staticmethod
    def _load(clean: Tensor, noisy: Tensor, scale: Tensor, chosen: Tensor, k: int) -> Float[Tensor, "T E"]:
        largest = noisy.topk(k + 1, -1).values
        # The k-th largest of the others: for a chosen expert the first not chosen, for another the last chosen.
        others = torch.where(chosen > 0, largest[:, k:], largest[:, k - 1 : k])
        return torch.special.ndtr((clean - others) / scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5))
