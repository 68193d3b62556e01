"""Equal parameters: one network as large as all networks together."""

from moebius.lab.ways._controls import dense_network, parameters_of, train_control
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way

# A larger one is not trained here.
MOST = 20_000_000


@way(control=True)
def equal_parameters(pool: Pool) -> Composed | Obstacle:
    """One network with a hidden layer and as many parameters as all networks have together, trained on the task.

    Reference: ours.
    """
    count = parameters_of(pool.experts)
    if not 0 < count <= MOST:
        return Obstacle(f"the networks have {count:,} parameters, and one of up to {MOST:,} is trained")
    network = dense_network(pool, count)
    if isinstance(network, Obstacle):
        return network
    return Composed(train_control(pool, network), f"one network of {parameters_of([network]):,} parameters")
