"""Uniform: equal weights."""

from moebius.gates.uniform import Uniform
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def uniform(pool: Pool) -> Composed | Obstacle:
    """The mean of all networks' probabilities, or of their quantities. Nothing is fitted.

    Reference: Hansen, Salamon 1990, Neural Network Ensembles.
    """
    return Composed(pool.mixture(Uniform(pool.count)), f"the mean of all {pool.count} networks")
