"""Too many drops: the capacity of the experts refuses rows."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval, percent

FLOOR = 0.05


@illness("MB013", "share of assignments that are dropped")
def too_many_drops(gate: Examination) -> Symptom | None:
    """At least a twentieth of the assignments is refused for lack of capacity, in training or now.

    Null: an unlimited capacity: 0. A balanced random router with capacity factor c drops about
    1 / √(2π·c²·T/E) of the rows at c = 1, which is little: drops come from imbalance.

    Reference: Fedus, Zoph, Shazeer 2021, Switch Transformers, arXiv:2101.03961, section 2.2.
    """
    shares = gate.training_drops
    if gate.rows.dropped is not None:
        now = gate.rows.dropped.double() / gate.rows.k
        shares = now if shares is None or now.mean() > shares.double().mean() else shares
    if shares is None:
        return None
    share = mean_interval(shares.double())
    if share.low < FLOOR:
        return None
    lost = torch.count_nonzero(shares >= 1).item() / len(shares)
    evidence = f"{percent(share.value)} of the assignments are dropped, and {percent(lost)} of the rows reach no expert"
    remedy = (
        "raise the capacity (or set it to None: nothing is dropped), send dropped rows to their next best expert, or "
        "balance the experts over the whole batch"
    )
    return Symptom(evidence, share.value, share.low, share.high, 0.0, "an unlimited capacity", remedy)
