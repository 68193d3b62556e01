"""Soft gate: weights by a trained gate, all networks run."""

from moebius.lab.ways._gates import trained_gate
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def soft_gate(pool: Pool) -> Composed | Obstacle:
    """The networks' probabilities, weighted by a gate that reads the row.

    The gate is trained on a part of the rows, with the networks as they are, and keeps the epoch with the least loss on
    the rest.

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts.
    """
    trained = trained_gate(pool)
    if isinstance(trained, Obstacle):
        return trained
    gate, text = trained
    return Composed(pool.mixture(gate), f"all networks, weighted by {text}")
