"""Padding routed: experts compute rows that are padding."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import percent, share_interval

FLOOR = 0.01


@illness("MB014", "share of the experts' work that is padding")
def padding_routed(gate: Examination) -> Symptom | None:
    """At least a hundredth of the assignments is of rows that the mask calls padding.

    They cost time, take capacity from real rows, and count in balance losses.

    Null: a mixture with a mask, `moe(x, mask=m)`: 0.

    Reference: ours.
    """
    rows = gate.rows
    if rows.real is None:
        return None
    padding = float(torch.count_nonzero(rows.kept[~rows.real]))
    share = share_interval(padding, max(float(torch.count_nonzero(rows.kept)), 1.0))
    if share.low < FLOOR:
        return None
    evidence = f"{percent(share.value)} of what the experts compute is padding"
    remedy = "give the mixture the mask: moe(x, mask=m), or with mb.context(mask=m) around the model"
    return Symptom(evidence, share.value, share.low, share.high, 0.0, "a mixture with a mask", remedy)
