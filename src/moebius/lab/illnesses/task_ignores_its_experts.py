"""Task ignores its experts: a task's gate gives nothing to the experts that are its alone."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import list_experts, mean_interval, percent

FLOOR = 0.05


@illness("MB016", "use of the task's experts, of an even share", explains=("ignored expert", "collapsed gate"))
def task_ignores_its_experts(gate: Examination) -> Symptom | None:
    """The experts that a task has for itself get under a twentieth of an even share of its gate's weight.

    Null: a gate that weighs all experts alike: 1.

    Reference: ours; Tang et al. 2020, Progressive Layered Extraction, RecSys 2020, figure 7 looks at the same weights.
    """
    numbers = list(gate.tasks_experts)
    if not numbers or len(numbers) == gate.rows.experts:
        return None
    weights = gate.rows.weights.abs().double()
    even = len(numbers) / gate.rows.experts
    share = mean_interval(weights[:, numbers].sum(1) / weights.sum(1).clamp(min=1e-300) / even)
    if share.high >= FLOOR:
        return None
    verb = "is" if len(numbers) == 1 else "are"
    evidence = (
        f"{list_experts(numbers)}, which {verb} the task's alone, {'gets' if len(numbers) == 1 else 'get'} "
        f"{percent(share.value)} of an even share: the shared experts do all"
    )
    remedy = (
        "drop the task's experts, which cost and give nothing; or give its loss more weight, so that its needs show in "
        "training"
    )
    return Symptom(
        evidence, share.value, max(share.low, 0.0), share.high, 1.0, "a gate with equal weights", remedy, tuple(numbers)
    )
