"""The router whose weights are a relaxed sample from the gate's distribution."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.core.safe_log import safe_log
from moebius.kit.arguments import positive_integer, positive_number


class GumbelSoftmax(Router):
    """Every expert sees every row, with weights that are a relaxed sample in training and a mean of several in eval.

    w(g) = softmax((scores + g) / temperature),  g_e = −ln(−ln u_e);  weights = w(g) in training, mean_s w(g_s) in eval

    In training the noise is drawn anew for each row, and makes experts take rows in turns: it regularises the gate. In
    eval the weights are an estimate of E w(g) from fixed noise, the same for every row, so that a row has the same
    output each time: each expert has the S quantiles of the Gumbel distribution at (s + ½) / S, in an order of its own
    (Latin hypercube), which has less error than S independent draws. As experts have different orders, those that swap
    their scores swap their weights only about. The mean of the weights gives the mean of the outputs, because a
    weighted sum is linear. `probs` are the softmax of the scores, without noise.

    `gumbel` has the same noise and uses one expert: its weights are one-hot, with the gradient of w(g).

    Arguments:
        temperature: above 0; low values make weights nearly one-hot, high values even them out. `training.router` may
            give it a schedule.
        samples: S, how many samples eval averages, at least 1; the paper finds that about 10 are enough.

    Shapes: scores (T, E) → Routing of T rows and E experts, `selection` None.

    Raises:
        ArgumentError: a temperature not above 0, or `samples` below 1.

    Example:
        >>> GumbelSoftmax().eval()(torch.tensor([[0.0, 1.0]])).weights
        tensor([[0.3282, 0.6718]])

    Reference: Chernov 2025, (GG) MoE vs. MLP on Tabular Data, the gate of GG MoE; there eval draws its noise anew, here
    it is fixed. Jang, Gu, Poole 2017, Categorical Reparameterization with Gumbel-Softmax, section 2. McKay, Beckman,
    Conover 1979, A Comparison of Three Methods for Selecting Values of Input Variables, for the samples.
    """

    interchangeable = False

    def __init__(self, temperature: float | int = 1.0, samples: int = 10):
        super().__init__()
        self.temperature = positive_number("temperature", temperature)
        self.samples = positive_integer("samples", samples)

    def forward(self, scores: Float[Tensor, "T E"]) -> Routing:
        """Route every row to every expert."""
        clean = at_least_float32(scores)
        probs = clean.softmax(-1)
        if self.training:
            noise = -torch.empty_like(probs).exponential_().log()
            log_weights = ((clean + noise) / self.temperature).log_softmax(-1)
            return Routing(scores, probs, log_weights.exp(), log_weights)
        noise_SE = _stratified_gumbel(self.samples, scores.shape[1], clean)
        weights = ((clean + noise_SE.unsqueeze(1)) / self.temperature).softmax(-1).mean(0)
        return Routing(scores, probs, weights, safe_log(weights))


def _stratified_gumbel(samples: int, experts: int, like: Tensor) -> Float[Tensor, "S E"]:
    """The Gumbel distribution's quantiles at (s + ½) / S for each expert, in an order of its own."""
    sample, expert = torch.arange(samples, device=like.device), torch.arange(experts, device=like.device)
    # A hash of both numbers, of whole numbers so that it is the same on every device.
    key = (sample.unsqueeze(1) + 1) * 1_103_515_245 + (expert + 1) * 1_597_334_677
    for factor in (1_540_483_477, 1_812_433_253, 1_013_904_223):
        key = key % 2_147_483_647
        key = (key + key // 32_768) * factor
    key = key % 2_147_483_647
    stratum = key.argsort(0)
    return -torch.log(-torch.log((stratum + 0.5) / samples)).to(like.dtype)
