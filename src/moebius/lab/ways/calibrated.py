"""Calibrated: a temperature for each network, then equal weights."""

import torch
from torch import Tensor

from moebius.core.routing import Routing
from moebius.experts.tempered import Tempered
from moebius.gates.uniform import Uniform
from moebius.lab.ways._fitting import drawn, minimise
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.routers.soft import Soft

# Of the logarithm of a temperature; beyond, the loss says nothing of it.
RANGE = 4.0
# A logit of −∞, of a class that a network does not know, has no gradient.
LEAST = -1e4


@way()
def calibrated(pool: Pool) -> Composed | Obstacle:
    """The mean of the networks' probabilities, each network's logits divided by a temperature of its own.

    The temperatures have together the least loss of the mean on the rows.

    Reference: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    if not pool.gives_probabilities:
        return Obstacle("it is for probabilities")
    temperatures = fit_temperatures(pool).tolist()
    experts = [Tempered(expert, round(value, 4)) for expert, value in zip(pool.experts, temperatures, strict=True)]
    named = ", ".join(f"{name} {value:.2g}" for name, value in zip(pool.names, temperatures, strict=True))
    return Composed(pool.mixture(Uniform(pool.count), experts=experts), f"the mean after temperatures: {named}")


def fit_temperatures(pool: Pool) -> Tensor:
    """The temperature of each network, (E,)."""
    few, combine = drawn(pool), pool.combine()
    outputs = few.outputs.clamp(min=LEAST)
    logarithms = torch.zeros(pool.count, dtype=torch.float64, device=pool.outputs.device, requires_grad=True)
    routing: Routing = Soft()(pool.outputs.new_zeros(len(few), pool.count))
    task = few.task.for_model(pool.mixture(Uniform(1), experts=pool.experts[:1]))

    def loss() -> Tensor:
        scale = (-RANGE * (logarithms / RANGE).tanh()).exp().to(outputs.dtype)
        values = outputs * scale.view(-1, *[1] * (outputs.ndim - 2))
        # One row more says that a temperature is 1: few rows do not move it far.
        prior = logarithms.square().sum() / len(few)
        return task.row_losses(combine(values, routing), few.rows.labels).double().mean() + prior

    with torch.no_grad():
        if not bool(loss().isfinite()):  # a class of some row has the probability 0 with every network
            return torch.ones(pool.count)
    minimise(loss, [logarithms])
    return (RANGE * (logarithms.detach() / RANGE).tanh()).exp()
