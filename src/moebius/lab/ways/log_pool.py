"""Log-pool: the geometric mean of probabilities."""

from moebius.combine.weighted_sum import WeightedSum
from moebius.gates.uniform import Uniform
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def log_pool(pool: Pool) -> Composed | Obstacle:
    """The mean of all networks' logits: the geometric mean of their probabilities, scaled to sum to 1.

    Nothing is fitted.

    Reference: Genest, Zidek 1986, Combining Probability Distributions: A Critique and an Annotated Bibliography.
    """
    if not pool.gives_probabilities:
        return Obstacle("it is for probabilities")
    if pool.specialists:
        return Obstacle("a class that one network does not know would never be predicted")
    model = pool.mixture(Uniform(pool.count), combine=WeightedSum())
    return Composed(model, f"the geometric mean of all {pool.count} networks' probabilities")
