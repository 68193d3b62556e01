"""Best single: one of the networks."""

from moebius.gates.uniform import Uniform
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def best_single(pool: Pool) -> Composed | Obstacle:
    """The network with the highest score on the rows, alone.

    Reference: ours; Schaffer 1993, Selecting a Classification Method by Cross-Validation.
    """
    best = pool.best()
    return Composed(pool.mixture(Uniform(1), experts=[pool.experts[best]]), f"{pool.names[best]} alone")
