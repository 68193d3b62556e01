"""Mixtures of normal distributions, one for each row: density, distribution function, moments and quantiles."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.combine._log_space import log_sum_exp


@dataclass(frozen=True)
class NormalMixture:
    """p(y) = Σ_m w_m Π_d N(y_d | μ_md, σ_md): M components for each of T rows and D quantities.

    The quantities are independent within a component, and not in the mixture.

    Arguments:
        log_weights: log w; −inf for a component that a row does not have. Moments, quantiles and the distribution
            function take weights that are scaled to sum to 1; the density takes them as they are.
        means: μ.
        scales: σ, above 0.
    """

    log_weights: Float[Tensor, "T M"]
    means: Float[Tensor, "T M D"]
    scales: Float[Tensor, "T M D"]

    @property
    def weights(self) -> Float[Tensor, "T M 1"]:
        """w, scaled to sum to 1; NaN for a row without components."""
        return self.log_weights.softmax(1).unsqueeze(-1)

    def log_density(self, values: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """log p of one point for each row, in nats; −inf, with gradients of zero, for a row without components."""
        return log_sum_exp(self.log_weights + log_normal(values.unsqueeze(1), self.means, self.scales))

    def distribution(self, values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """P(y_d ≤ value) of each quantity."""
        standardised = (values.unsqueeze(1) - self.means) / self.scales
        return (self.weights * torch.special.ndtr(standardised)).sum(1)

    def mean(self) -> Float[Tensor, "T D"]:
        """E y."""
        return (self.weights * self.means).sum(1)

    def standard_deviation(self) -> Float[Tensor, "T D"]:
        """The square root of the variance within and between components."""
        spread = self.scales.square() + (self.means - self.mean().unsqueeze(1)).square()
        return (self.weights * spread).sum(1).sqrt()

    def quantile(self, probability: float) -> Float[Tensor, "T D"]:
        """The value below which each quantity is with this probability, by bisection.

        It lies between the smallest and the largest such value of a component; half of that distance is left out in
        each step, until the digits of the number format are used up.
        """
        component = self.means + self.scales * _normal_quantile(probability)
        present = self.log_weights.unsqueeze(-1) > -torch.inf
        low = torch.where(present, component, torch.inf).amin(1)
        high = torch.where(present, component, -torch.inf).amax(1)
        for _ in range(1 - round(math.log2(torch.finfo(low.dtype).eps))):
            middle = low + (high - low) / 2
            is_below = self.distribution(middle) < probability
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return low + (high - low) / 2


def log_normal(
    values: Float[Tensor, "T #E D"], means: Float[Tensor, "T E D"], scales: Float[Tensor, "T E D"]
) -> Float[Tensor, "T E"]:
    """log Π_d N(value_d | μ_d, σ_d), in nats."""
    standardised = (values - means) / scales
    return (-0.5 * standardised.square() - scales.log()).sum(-1) - 0.5 * math.log(2 * math.pi) * means.shape[-1]


def _normal_quantile(probability: float) -> float:
    return torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)).item()
