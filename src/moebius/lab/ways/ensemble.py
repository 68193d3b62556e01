"""Ensemble: networks of all classes at the work of the whole pool."""

from moebius.gates.uniform import Uniform
from moebius.lab.remedies._fresh import fresh
from moebius.lab.ways._controls import train_control
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way(control=True)
def ensemble(pool: Pool) -> Composed | Obstacle:
    """The mean of as many fresh copies of the best network of all classes as the pool has networks.

    Each copy is drawn anew and trained on the task: an ensemble at about equal work.

    Reference: Hansen, Salamon 1990, Neural Network Ensembles; Lakshminarayanan, Pritzel, Blundell 2017,
    arXiv:1612.01474.
    """
    if not pool.generalists:
        return Obstacle("it needs a network of all classes, whose copies could be trained")
    best = pool.best(pool.generalists)
    members = []
    for number in range(pool.count):
        network = fresh(pool.experts[best].network, 1000 + pool.seed + number)  # type: ignore[arg-type]
        if network is None:
            return Obstacle(f"nothing tells how {pool.names[best]} begins anew: it has no reset_parameters")
        network.requires_grad_(True)
        members.append(train_control(pool, network).experts[0])
    return Composed(
        pool.mixture(Uniform(pool.count), experts=members), f"{pool.count} networks like {pool.names[best]}"
    )
