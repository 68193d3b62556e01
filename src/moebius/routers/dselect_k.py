"""The router that selects k experts by smooth binary codes."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.core.safe_log import safe_log
from moebius.kit.arguments import positive_integer, positive_number
from moebius.kit.errors import ArgumentError
from moebius.routers._selecting import weighted_selection


class DSelectK(Router):
    """Each of k selectors names an expert by smooth binary digits, which can become exactly 0 or 1.

    r(z)_e = Π_j (S(z_j) if digit j of e is 1 else 1 − S(z_j)),  S the smooth step: 0 below −γ/2, 1 above γ/2
    weights = probs = Σ_k softmax(a)_k · r(z_k)

    The weights are continuous and differentiable everywhere, and exactly sparse where digits have reached 0 or 1: a
    selector whose digits are all 0 or 1 runs one expert, and its digits no longer have a gradient. The loss
    `selector_entropy` speeds this up. At first no digit is 0 or 1 if the gate's numbers are small compared with γ/2.

    For every row the gate gives k·m numbers z, m = ⌈log2 E⌉, one per digit, and then the k logits a of the selectors.
    Where E is not a power of two, the share of codes that name no expert is divided equally among all experts (ours: a
    division by the remaining share, which may be 0, would not be differentiable everywhere; the paper adds a penalty on
    such codes).

    Arguments:
        k: number of selectors, at least 1: the most experts of a row once all digits are 0 or 1.
        experts: E.
        gamma: γ, the width of the smooth step, above 0; the wider, the later digits become 0 or 1.

    Shapes: scores (T, k·m + k) → Routing of T rows and E experts with T·E assignments, kept where a weight is positive;
        `scores` are ln(weights), at least −100; `aux["selectors"]` (T, k, E).

    Raises:
        ArgumentError: k or experts below 1, or γ not above 0.

    Example:
        >>> DSelectK(1, experts=4)(torch.tensor([[1.0, -1.0, 0.0]])).weights  # digits 1 and 0, the lowest first
        tensor([[0., 1., 0., 0.]])

    Reference: Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong, Chi 2021, DSelect-k: Differentiable
    Selection in the Mixture of Experts with Applications to Multi-Task Learning, its per-example gate.
    """

    interchangeable = False
    aux_names = ("selectors",)
    # Not named k: a schedule could change an attribute k, and the gate has outputs for this number of selectors.
    kept_as: ClassVar[dict[str, str]] = {"k": "selectors"}

    def __init__(self, k: int, experts: int, gamma: float | int = 1.0):
        super().__init__()
        self.selectors, self.experts = positive_integer("k", k), positive_integer("experts", experts)
        self.gamma = positive_number("gamma", gamma)

    @property
    def digits(self) -> int:
        """m, the number of binary digits of an expert's number."""
        return (self.experts - 1).bit_length()

    def gate_outputs(self, experts: int) -> int:
        """k·m + k: the digits of every selector, then the selectors' logits."""
        if experts != self.experts:
            rule = f"the router was made for {self.experts} experts"
            raise ArgumentError("experts", rule, experts, f"DSelectK({self.selectors}, experts={experts})")
        return self.selectors * (self.digits + 1)

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route every row to the experts that its selectors name."""
        numbers = at_least_float32(scores)
        width = self.selectors * self.digits
        z = numbers[:, :width].unflatten(1, (self.selectors, self.digits)).unsqueeze(-1)
        # There are N = 2^m codes, and the first E of them name experts.
        code_N = torch.arange(2**self.digits, device=scores.device)
        # A division by 2^0, 2^1 … and not a shift: ONNX cannot shift signed numbers.
        digit_mN = code_N // 2 ** torch.arange(self.digits, device=scores.device).unsqueeze(1) % 2
        # S(−z) is 1 − S(z), computed without cancellation where it is small.
        share_TKN = torch.where(digit_mN == 1, _smooth_step(z, self.gamma), _smooth_step(-z, self.gamma)).prod(2)
        selectors_TKE = share_TKN[..., : self.experts]
        if self.experts < 2**self.digits:
            share_of_no_expert = share_TKN[..., self.experts :].sum(-1, keepdim=True)
            selectors_TKE = selectors_TKE + share_of_no_expert / self.experts
        weights = (numbers[:, width:].softmax(-1).unsqueeze(-1) * selectors_TKE).sum(1)
        log_weights = safe_log(weights).clamp(min=-100)
        return Routing.from_selection(log_weights, weights, weighted_selection(weights), {"selectors": selectors_TKE})


def _smooth_step(z: Float[Tensor, "..."], gamma: float) -> Float[Tensor, "..."]:
    """S(z) = −2 z³/γ³ + 3 z/(2γ) + 1/2 between −γ/2 and γ/2, 0 below and 1 above: its slope is continuous."""
    # The polynomial as a product: the sum would lose small values by cancellation.
    t = (z / gamma + 0.5).clamp(0, 1)
    return t**2 * (3 - 2 * t)
