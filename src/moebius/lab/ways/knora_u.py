"""KNORA-U: networks count as often as they are right on near rows."""

from moebius.gates.knora_union import KnoraUnion
from moebius.lab.ways._knora import nearest_rows
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def knora_u(pool: Pool) -> Composed | Obstacle:
    """A network's weight is the number of near rows on which it is right; near are rows with like outputs.

    Reference: Ko, Sabourin, Britto 2008, From Dynamic Classifier Selection to Dynamic Ensemble Selection.
    """
    return nearest_rows(pool, KnoraUnion, "networks, weighted by how often they are right among")
