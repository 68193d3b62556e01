"""Output gate: weights by a gate that reads what the networks say."""

from moebius.gates.output_linear import OutputLinear
from moebius.lab.ways._gates import train_gates
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def output_gate(pool: Pool) -> Composed | Obstacle:
    """The networks' probabilities, weighted by a linear gate of all networks' log-probabilities.

    Reference: Wolpert 1992, Stacked Generalization, for a learner of others' outputs; as a gate ours.
    """
    if not pool.classifies or pool.outputs.ndim != 3:
        return Obstacle("it is for probabilities of classes")
    classes = pool.outputs.shape[2]
    gate, _ = train_gates(pool, {"": lambda: OutputLinear(pool.count, classes)})
    return Composed(pool.mixture(gate), "all networks, weighted by a gate that reads their outputs")
