"""Unstable routing: the same row goes elsewhere when it comes again."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import percent, share_interval

FLOOR = 0.02


@illness("MB015", "share of rows that change experts")
def unstable_routing(gate: Examination) -> Symptom | None:
    """At least a fiftieth of the rows goes to other experts when all come again, in another order and other batches.

    The reasons: a router that draws or adds noise in evaluation, one whose rows compete for the experts of a batch,
    batch statistics in the gate, or scores so near to each other that rounding decides.

    Null: a gate that is a function of the row: 0.

    Reference: ours.
    """
    if gate.moved is None:
        return None
    share = share_interval(float(torch.count_nonzero(gate.moved)), len(gate.moved))
    if share.low < FLOOR:
        return None
    evidence = (
        f"{percent(share.value)} of the rows go to other experts when they come in another order and other batches"
    )
    remedy = (
        "evaluate without noise; use a router that takes each row by itself (mb.routers.TopK) where a prediction must "
        "not depend on the rows beside it"
    )
    return Symptom(evidence, share.value, share.low, share.high, 0.0, "a gate that is a function of the row", remedy)
