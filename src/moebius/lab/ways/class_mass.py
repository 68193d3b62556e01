"""Class mass: each specialist counts as much as a generalist believes in its classes."""

from moebius.gates.class_mass import ClassMass
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.layers.mixture import Mixture


@way()
def class_mass(pool: Pool) -> Composed | Obstacle:
    """A specialist's weight is the probability that the best generalist gives to the specialist's classes.

    Nothing is trained. Networks that know all classes are generalists, and specialists know some.

    Reference: ours.
    """
    routed = class_mass_mixture(pool)
    if isinstance(routed, Obstacle):
        return routed
    generalist = pool.names[pool.best(pool.generalists)]
    return Composed(routed, f"specialists, weighted by how much {generalist} believes in their classes")


def class_mass_mixture(pool: Pool) -> Mixture | Obstacle:
    """The specialists, weighted by the mass that the best generalist gives to their classes."""
    if not pool.classifies:
        return Obstacle("it is for probabilities of classes")
    if not pool.generalists or len(pool.specialists) < 2:
        return Obstacle("it needs a network of all classes, and two or more that know some classes each")
    if not bool(pool.knows[pool.specialists].any(0).all()):
        return Obstacle("there are classes that no specialist knows")
    generalist = pool.experts[pool.best(pool.generalists)]
    classes = [pool.knows[number].nonzero().flatten().tolist() for number in pool.specialists]
    return pool.mixture(ClassMass(generalist, classes), experts=[pool.experts[number] for number in pool.specialists])
