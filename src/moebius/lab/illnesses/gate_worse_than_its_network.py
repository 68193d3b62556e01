"""Gate worse than its network: the gate's own architecture would do the task better by itself."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval


@illness("MB009", "score of the gate's network above the mixture's", remedies=("add_expert",))
def gate_worse_than_its_network(gate: Examination) -> Symptom | None:
    """A network of the gate's architecture, trained on the task itself, has a higher score than the whole mixture.

    It is trained on rows that it is not tested on. Rows are paired.

    Null: the gate's network without any experts: 0.

    Reference: ours.
    """
    if gate.network is None or gate.rows.scores is None:
        return None
    gain = mean_interval(gate.network.scores.double() - gate.rows.scores.double())
    if gain.low <= 0:
        return None
    score = float(gate.network.scores.double().mean())
    evidence = (
        f"a network of the gate's architecture learns the task to a score of {score:.3f} by itself, {gain.value:.3f} "
        "above the mixture that it chooses experts for"
    )
    remedy = (
        "use that network alone, or give the mixture better experts: add the network as one (mb.add_expert) and train "
        "the gate anew"
    )
    return Symptom(evidence, gain.value, gain.low, gain.high, 0.0, "a mixture that pays", remedy)
