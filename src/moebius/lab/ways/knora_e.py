"""KNORA-E: the networks that are right on all near rows."""

from moebius.gates.knora_eliminate import KnoraEliminate
from moebius.lab.ways._knora import nearest_rows
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way


@way()
def knora_e(pool: Pool) -> Composed | Obstacle:
    """The mean of the networks that are right on all near rows, or on as many of the nearest as any.

    Reference: Ko, Sabourin, Britto 2008, From Dynamic Classifier Selection to Dynamic Ensemble Selection.
    """
    return nearest_rows(pool, KnoraEliminate, "the networks that are right on all, or on most, of")
