"""Hard gate: one network runs for each row, chosen by a trained gate."""

from moebius.lab.ways._gates import trained_gate
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.routers.argmax import Argmax


@way()
def hard_gate(pool: Pool) -> Composed | Obstacle:
    """The network with the largest weight of the gate of `soft_gate` runs, alone.

    Reference: Shazeer et al. 2017, Outrageously Large Neural Networks, arXiv:1701.06538, for running chosen experts
    alone; to cut a gate that was trained softly is study 5's.
    """
    trained = trained_gate(pool)
    if isinstance(trained, Obstacle):
        return trained
    gate, text = trained
    return Composed(pool.mixture(gate, Argmax()), f"one network for each row, chosen by {text}")
