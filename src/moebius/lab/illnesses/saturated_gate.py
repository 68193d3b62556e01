"""Saturated gate: weights of exactly 0 and 1 for rows that it sends to the wrong expert."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import percent, share_interval
from moebius.lab.illnesses._regret import wrong_choices

# A probability that misses 1 by less gives a softmax in float32 next to no gradient.
MARGIN = 1e-5
# The share of rows that are decided so.
MOST = 0.5
# The share of all rows that are decided so, and wrong.
FLOOR = 0.02


@illness(
    "MB005",
    "share of rows that are decided beyond learning, and wrong",
    remedies=("refit_gate",),
    explains=("vanishing gate gradient",),
)
def saturated_gate(gate: Examination) -> Symptom | None:
    """The gate's largest probability is 1 to within 1e-5 for half of the rows or more, and not because it is right.

    The gradient of a softmax is p(1 − p): such a gate cannot learn from its mistakes. Certainty alone is no illness:
    at least a fiftieth of all rows has to be sent with it to an expert that another one clearly beats.

    Null: a gate that is certain where it is right: 0.

    Reference: ours; study 2's gates on raw pixels begin like this.
    """
    wrong = wrong_choices(gate)
    if wrong is None or not gate.learns:
        return None
    certain = gate.rows.probs.amax(1) > 1 - MARGIN
    if float(certain.double().mean()) < MOST:
        return None
    share = share_interval(float(torch.count_nonzero(certain & wrong)), len(wrong))
    if share.low < FLOOR:
        return None
    evidence = (
        f"{percent(float(certain.double().mean()))} of the rows have a largest probability of 1 to within {MARGIN:g}, and "
        f"{percent(share.value)} of all rows go to the wrong expert with it, where no gradient can correct the gate"
    )
    remedy = (
        "scale the gate's input to about unit variance, and start the gate anew; z_loss keeps its scores small while it "
        "learns, and a router temperature above 1 softens them"
    )
    return Symptom(
        evidence, share.value, share.low, share.high, 0.0, "a gate that is certain where it is right", remedy
    )
