"""Padding routed: experts compute rows that are padding."""

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
    if gate.padding is None:
        return None
    share = share_interval(gate.padding[0], max(gate.padding[1], 1.0))
    if share.low < FLOOR:
        return None
    evidence = f"{percent(share.value)} of what the experts compute is padding"
    remedy = "give the mixture the mask: moe(x, mask=m), or with mb.context(mask=m) around the model"
    return Symptom(evidence, share.value, share.low, share.high, 0.0, "a mixture with a mask", remedy)
