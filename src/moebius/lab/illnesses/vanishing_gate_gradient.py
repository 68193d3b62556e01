"""Vanishing gate gradient: the loss moves the experts and not the gate."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._regret import gain_of_right_choices

# The gradient at the gate's scores, of that at the output, under which training does not reach it.
FLOOR = 1e-6


@illness("MB006", "gradient at the scores, of that at the output", remedies=("refit_gate",))
def vanishing_gate_gradient(gate: Examination) -> Symptom | None:
    """The RMS of the gate's gradient is under 1e-6 of that of the output, though it sends rows to wrong experts.

    A gate that makes no mistakes has no gradient either: so at least a fiftieth of the rows has to have a clearly
    better expert. Typical reasons: the weight of a single chosen expert is renormalised to 1; scores are detached; a
    normalisation is flat where the scores are.

    Null: a gate that learns at the pace of its experts: about 1.

    Reference: ours; Shazeer et al. 2017, arXiv:1701.06538, need k > 1 for this reason.
    """
    if gate.gradient is None or not gate.learns or gate.gradient >= FLOOR:
        return None
    lost = gain_of_right_choices(gate.rows)
    if lost is None or lost.low < 0.02:
        return None
    evidence = (
        f"the gradient at the gate's scores is {gate.gradient:.2g} of that at the output, while wrong experts cost "
        f"{lost.value:.3f} of the score"
    )
    remedy = (
        "multiply by the full softmax's probability where one expert runs (mb.routers.TopK(1) does), do not detach "
        "scores, and standardise the gate's input (mb.gates.Standardised)"
    )
    return Symptom(
        evidence, gate.gradient, gate.gradient, gate.gradient, 1.0, "a gate that learns as its experts do", remedy
    )
