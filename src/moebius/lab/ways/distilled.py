"""Distilled: one network that has learned what the pool says."""

from moebius.gates.uniform import Uniform
from moebius.lab.ways._controls import dense_network, distillation, parameters_of, train_control
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.tasks.gaussian import Gaussian


@way(control=True)
def distilled(pool: Pool) -> Composed | Obstacle:
    """One network, with a hidden layer and the parameters of a mean network, that learns the mean of all networks.

    It is trained on the rows that ways are fitted to, for which the pool's outputs are known.

    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    if isinstance(pool.task, Gaussian):
        return Obstacle("it is for classes and quantities")
    count = parameters_of(pool.experts) // pool.count
    network = dense_network(pool, max(count, 1))
    if isinstance(network, Obstacle):
        return network
    rows, loss = distillation(pool, pool.outputs_of(pool.mixture(Uniform(pool.count))))
    model = train_control(pool, network, rows, loss)
    return Composed(model, f"one network of {parameters_of([network]):,} parameters that has learned the mean")
