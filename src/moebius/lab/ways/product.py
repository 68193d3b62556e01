"""Product: a generalist times the specialists that it routes."""

from moebius.combine.linear_stack import LinearStack
from moebius.gates.uniform import Uniform
from moebius.lab.ways._fitting import columns, mean_loss, minimise
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.lab.ways.class_mass import class_mass_mixture
from moebius.layers.mixture import Mixture


@way()
def product(pool: Pool) -> Composed | Obstacle:
    """log p ∝ a log p_generalist + b log p_specialists: the best generalist times the specialists that it routes.

    The specialists are mixed as by `class_mass`; a and b have the least loss on the rows.

    Reference: Hinton 2002, Training Products of Experts by Minimizing Contrastive Divergence, for products.
    """
    routed = class_mass_mixture(pool)
    if isinstance(routed, Obstacle):
        return routed
    best = pool.best(pool.generalists)
    members = [pool.experts[best], routed]
    combine = LinearStack(2, pool.outputs.shape[2], form="scalar").to(pool.outputs.device)
    pair = pool.with_outputs(members)
    model = Mixture(Uniform(2), columns(2), combine=combine)
    minimise(lambda: mean_loss(pair, model), list(combine.parameters()))
    a, b = (((1 + scale) / 2) for scale in combine.scales.flatten().tolist())
    fitted = pool.mixture(Uniform(2), combine=combine, experts=members)
    return Composed(fitted, f"{pool.names[best]} to the power {a:.2f}, times specialists to the power {b:.2f}")
