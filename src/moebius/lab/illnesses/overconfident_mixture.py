"""Overconfident mixture: its probabilities are higher than its share of right answers."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval

FLOOR = 0.05


@illness("MB011", "mean probability of the answer above the share of right ones", remedies=("calibrate",))
def overconfident_mixture(gate: Examination) -> Symptom | None:
    """The mean probability of the predicted class is shown to be above the accuracy by .05 or more.

    gap = mean(confidence) − mean(score), in [−1, 1]

    Null: a calibrated model: 0.

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    rows = gate.rows
    if rows.confidence is None or rows.scores is None or not gate.outermost:
        return None
    gap = mean_interval(rows.confidence.double() - rows.scores.double())
    if gap.low < FLOOR:
        return None
    confidence, score = float(rows.confidence.double().mean()), float(rows.scores.double().mean())
    evidence = f"it gives its answers a probability of {confidence:.2f} on average, and {score:.2f} of them are right"
    remedy = "divide its logits by a temperature that is fitted on held-out rows; its answers stay the same"
    return Symptom(evidence, gap.value, gap.low, gap.high, 0.0, "a calibrated model", remedy)
