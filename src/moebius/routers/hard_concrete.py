"""The router whose experts are open or closed, each by itself."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32
from moebius.routers._selecting import weighted_selection


class HardConcrete(Router):
    """Every expert has a gate of its own, exactly 0 for some rows; a penalty on open ones makes them few.

    s = σ((ln u − ln(1 − u) + scores) / temperature),  z = clip(s · (high − low) + low, 0, 1),  u uniform; in eval
    z = clip(σ(scores) · (high − low) + low, 0, 1)
    weights = z, or z / Σ_e z renormalised;  probs_e = P(z_e > 0) = σ(scores_e − temperature · ln(−low / high))

    A row whose gates are all closed keeps its best expert, with weight 1 (ours: without one there is no output). The
    gradient of that weight is passed on to (high − low) · s, its gate before clipping, so that it can open again;
    renormalised, a single open gate has none. `aux["open"]` is P(z > 0), for `expected_l0`.

    Arguments:
        temperature: above 0.
        low, high: ends of the stretched interval, below 0 and above 1.
        renormalise: whether the weights of a row sum to 1.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where z > 0.

    Raises:
        ArgumentError: a temperature that is not above 0, a low end that is not below 0, a high end not above 1.

    Example:
        >>> HardConcrete().eval()(torch.tensor([[4.0, 4.0, -4.0]])).weights
        tensor([[0.5000, 0.5000, 0.0000]])

    Reference: Louizos, Welling, Kingma 2018, Learning Sparse Neural Networks through L0 Regularization, equations 10 to
    13; gates for each row are ours, theirs belong to parameters.
    """

    aux_names = ("open",)

    def __init__(
        self,
        temperature: float | int = 2 / 3,
        low: float | int = -0.1,
        high: float | int = 1.1,
        renormalise: bool = True,
    ):
        super().__init__()
        if not low < 0:
            raise ArgumentError("low", "needs a number below 0", low, "low: -0.1")
        if not high > 1:
            raise ArgumentError("high", "needs a number above 1", high, "high: 1.1")
        self.temperature, self.low, self.high = positive_number("temperature", temperature), float(low), float(high)
        self.renormalise = renormalise
        self.rows_sum_to = 1.0 if renormalise else None

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to the experts whose gates are open."""
        logits = at_least_float32(scores)
        opening = (logits - self.temperature * math.log(-self.low / self.high)).sigmoid()
        if self.training:
            noise = torch.rand_like(logits).logit(eps=torch.finfo(logits.dtype).eps)
            gate = ((noise + logits) / self.temperature).sigmoid()
        else:
            gate = logits.sigmoid()
        stretched = gate * (self.high - self.low) + self.low
        z = stretched.clamp(0, 1)
        total = z.sum(-1, keepdim=True)
        weights = z / torch.where(total > 0, total, 1) if self.renormalise else z
        place = logits.argmax(-1, keepdim=True)
        best = stretched.gather(1, place)
        alone = torch.zeros_like(z).scatter(1, place, 1 + (best - best.detach()))
        weights = torch.where(total > 0, weights, alone)
        return Routing.from_selection(
            scores, opening, weighted_selection(weights), {"open": opening}, distribution=False
        )
