"""Feature gate: weights by attention to what the networks make of a row before their last layer."""

from moebius.lab.ways._attention import attentive_mixture
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def feature_gate(pool: Pool) -> Composed | Obstacle:
    """The networks' probabilities, weighted by a gate that attends to each network's features of the row.

    The query is the same for all rows, or a gate network makes it of the row: of these the one with the least loss on
    rows that were not fitted.

    Reference: Krishnamurthy, Watkins, Gärtner 2023, Improving Expert Specialization in Mixture of Experts, attentive
    gating; a query that is the same for all rows is ours.
    """
    fitted = attentive_mixture(pool)
    if isinstance(fitted, Obstacle):
        return fitted
    model, text = fitted
    return Composed(model, f"all networks, weighted by {text}")
