"""Refit the gate: train it alone, with the experts as they are."""

from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.remedies._fitting import best_of
from moebius.lab.remedies._gate_fits import gate_fits


@remedy("loss")
def refit_gate(case: Case) -> Treatment | Obstacle:
    """The gate is trained on the rows, and nothing else is.

    It starts from where it is and anew; where the router selects experts, it is also trained with all experts running,
    and routes as before afterwards. The form with the least loss on rows that it was not fitted to is kept.

    Reference: ours.
    """
    fits = gate_fits(case)
    return fits if isinstance(fits, Obstacle) else best_of(case, fits)
