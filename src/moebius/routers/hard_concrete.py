"""The router with a binary gate for each expert, open or closed."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers._selecting import weighted_selection


class HardConcrete(Router):
    """Every expert has a separate gate, exactly 0 for some rows; a penalty on open gates makes them few.

    s = σ((ln u − ln(1 − u) + scores) / temperature),  z = clip(s · (high − low) + low, 0, 1),  u uniform; in eval
    z = clip(σ(scores) · (high − low) + low, 0, 1)
    weights = z, or z / Σ_e z renormalised;  probs_e = P(z_e > 0) = σ(scores_e − temperature · ln(−low / high))

    A row whose gates are all closed keeps its best expert, with weight 1 (ours: without an expert there is no output).
    The gradient of that weight goes to (high − low) · s, the gate before clipping, so that the gate can open again;
    renormalised, a single open gate has no gradient. `aux["open"]` is P(z > 0), for `expected_l0`.

    Arguments:
        temperature: above 0.
        low, high: ends of the stretched interval; low below 0, high above 1.
        renormalise: whether the weights of a row sum to 1.

    Shapes: scores (T, E) → Routing with T·E assignments, kept where z > 0.

    Raises:
        ArgumentError: a temperature not above 0, `low` not below 0, or `high` not above 1.

    Example:
        >>> HardConcrete().eval()(torch.tensor([[4.0, 4.0, -4.0]])).weights
        tensor([[0.5000, 0.5000, 0.0000]])

    Reference: Louizos, Welling, Kingma 2018, Learning Sparse Neural Networks through L0 Regularization, equations 10 to
    13; gates for each row are ours, those of the paper belong to parameters.
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
        open_probs = (logits - self.temperature * math.log(-self.low / self.high)).sigmoid()
        if self.training:
            noise = torch.rand_like(logits).logit(eps=torch.finfo(logits.dtype).eps)
            gate = ((noise + logits) / self.temperature).sigmoid()
        else:
            gate = logits.sigmoid()
        stretched = gate * (self.high - self.low) + self.low
        z = stretched.clamp(0, 1)
        total = z.sum(-1, keepdim=True)
        weights = z / torch.where(total > 0, total, 1) if self.renormalise else z
        best_T1 = logits.argmax(-1, keepdim=True)
        best_gate = stretched.gather(1, best_T1)
        best_only = torch.zeros_like(z).scatter(1, best_T1, 1 + (best_gate - best_gate.detach()))
        weights = torch.where(total > 0, weights, best_only)
        return Routing.from_selection(
            scores, open_probs, weighted_selection(weights), {"open": open_probs}, distribution=False
        )
