"""Gate worse than uniform: equal weights are better than those that it gives."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval

# Of the loss of equal weights.
FLOOR = 0.01


@illness("MB008", "loss above that of equal weights, of the loss", remedies=("average", "refit_gate"))
def gate_worse_than_uniform(gate: Examination) -> Symptom | None:
    """The model has less loss, and no lower score, where this gate weighs all experts alike.

    The model is run once more with weights of 1/E. Rows are paired; the gate is worse where its loss is shown to be
    higher, by a hundredth of it or more, and its score is not higher. Note that equal weights run all experts.

    Null: equal weights: 0.

    Reference: ours; study 4's tree does not beat equal weights.
    """
    as_is, uniform = gate.as_is, gate.uniform
    if not gate.decides or uniform is None or as_is is None:
        return None
    size = float(uniform.losses.abs().mean().clamp(min=1e-12))
    excess = mean_interval((as_is.losses - uniform.losses) / size)
    if excess.low <= 0 or excess.value < FLOOR:
        return None
    gain = mean_interval(as_is.scores.double() - uniform.scores.double())
    if gain.value > 0:
        return None
    evidence = (
        f"the loss is {1 + excess.value:.3g} times that of equal weights, and the score {-gain.value:.3f} lower than "
        "theirs"
    )
    remedy = (
        "weigh the experts alike (mb.gates.Uniform), which costs a run of each; or train the gate on rows that its "
        "experts have not seen: on their training rows they seem better, and more certain, than they are"
    )
    return Symptom(evidence, excess.value, excess.low, excess.high, 0.0, "an average of all experts", remedy)
