"""The router that samples one expert for each row."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.routers._selecting import expert_counts, single_selection


class Gumbel(Router):
    """One expert for each row, sampled from the gate's distribution in training, with the gradient of a relaxed sample.

    y = softmax((scores + g) / temperature),  g_e = −ln(−ln u_e),  u_e uniform;  weights = one-hot(argmax y)

    The weights are exactly one-hot, and the backward pass treats them as y (straight-through): the gradient needs the
    output of every expert, so all experts run in training. In eval only the expert with the largest score runs, with
    weight 1. `probs` are the softmax of the scores, without noise.

    Arguments:
        temperature: above 0; low values give large, noisy gradients, high values a relaxation far from the sample.
            `training.router` may give it a schedule.

    Shapes: scores (T, E) → Routing, `selection` None in training, T assignments in eval.

    Raises:
        ArgumentError: a temperature not above 0.

    Example:
        >>> Gumbel().eval()(torch.tensor([[0.0, 2.0]])).weights
        tensor([[0., 1.]])

    Reference: Jang, Gu, Poole 2017, Categorical Reparameterization with Gumbel-Softmax, section 2.2; Maddison, Mnih,
    Teh 2017, The Concrete Distribution.
    """

    aux_names = ("assigned",)

    def __init__(self, temperature: float | int = 1.0):
        super().__init__()
        self.temperature = positive_number("temperature", temperature)

    def max_active(self, experts: int) -> int:
        """1."""
        return 1

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to one expert."""
        probs = at_least_float32(scores).softmax(-1)
        if not self.training:
            expert_T = scores.argmax(-1)
            aux = {"assigned": expert_counts(expert_T, scores.shape[1])}
            return Routing(scores, probs, *single_selection(expert_T, probs), aux=aux)
        noise = -torch.empty_like(probs).exponential_().log()
        noisy = at_least_float32(scores) + noise
        expert_T1 = noisy.detach().argmax(-1, keepdim=True)
        relaxed = (noisy / self.temperature).softmax(-1)
        hard = torch.zeros_like(relaxed).scatter(1, expert_T1, 1.0)
        weights = hard + (relaxed - relaxed.detach())
        aux = {"assigned": expert_counts(expert_T1.flatten(), scores.shape[1])}
        return Routing(scores, probs, weights, hard.log(), aux=aux, straight_through=True)
