"""Gate network: the gate's own architecture as a model of the task."""

from moebius.lab.remedies._gate_network import gate_network as network_of
from moebius.lab.ways._controls import train_control
from moebius.lab.ways._gates import fitting_gates
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way(control=True)
def gate_network(pool: Pool) -> Composed | Obstacle:
    """The network of the largest gate that fits the rows, trained on the task without any of the networks.

    Reference: ours; study 4's `gate-alone`.
    """
    gates = fitting_gates(pool)
    if isinstance(gates, Obstacle):
        return gates
    text, make = list(gates.items())[-1]
    network = network_of(make(), pool.outputs[0, 0].numel(), pool.seed)
    if network is None:
        return Obstacle("the gate has no linear layer that could give the task's outputs")
    return Composed(train_control(pool, network), f"{text} as a network of the task, without the others")
