"""Saturated gate: weights of exactly 0 and 1 for rows that it sends to the wrong expert."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval, percent
from moebius.lab.illnesses._regret import wrong_choices

# A probability that misses 1 by less gives a softmax in float32 next to no gradient.
MARGIN = 1e-5
# The share of rows that are decided so.
MOST = 0.5
# What the right experts would add to the score of all rows.
FLOOR = 0.02


@illness(
    "MB005", "score lost by certain and wrong choices", remedies=("refit_gate",), explains=("vanishing gate gradient",)
)
def saturated_gate(gate: Examination) -> Symptom | None:
    """The gate's largest probability is 1 to within 1e-5 for half of the rows or more, and not because it is right.

    The gradient of a softmax is p(1 − p): such a gate cannot learn from its mistakes. Certainty alone is no illness:
    the score has to lose .02 or more by groups of rows that are sent, with certainty, to an expert that another one
    beats.

    Null: a gate that is certain where it is right: 0.

    Reference: ours; study 2's gates on raw pixels begin like this.
    """
    gains = wrong_choices(gate.rows)
    if gains is None or not gate.learns:
        return None
    certain = gate.rows.probs.amax(1) > 1 - MARGIN
    share = float(certain.double().mean())
    if share < MOST:
        return None
    lost = mean_interval(gains * certain)
    if lost.low < FLOOR:
        return None
    evidence = (
        f"{percent(share)} of the rows have a largest probability of 1 to within {MARGIN:g}; wrong experts among them "
        f"cost {lost.value:.3f} of the score, and no gradient can correct the gate"
    )
    remedy = (
        "standardise the data, or the gate's input (mb.gates.Standardised), and start the gate anew; a router "
        "temperature above 1 softens its scores"
    )
    return Symptom(evidence, lost.value, lost.low, lost.high, 0.0, "a gate that is certain where it is right", remedy)
