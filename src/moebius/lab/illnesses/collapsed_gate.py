"""Collapsed gate: all rows go to the same experts."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import list_experts, percent, share_interval
from moebius.lab.illnesses._use import active_count, idle_experts, use_shares


@illness(
    "MB001",
    "share of the use that the busiest experts have",
    remedies=("balance", "refit_gate"),
    explains=("ignored expert", "blind gate", "balanced but unspecialised", "unstable routing"),
    watched=True,
)
def collapsed_gate(gate: Examination) -> Symptom | None:
    """Hardly more experts are in use than a single row takes, so that the gate decides nothing.

    An expert is idle where its use is under a twentieth of an even share (and shown to be under one), and no
    class or domain is mostly its. The gate has collapsed where no more than max(k, E/4) experts are not idle, with k
    the experts of a row (1 where all run).

    Null: a balanced random router, whose experts all have about 1/E of the use.

    Reference: ours; the floor is relative to E, because .02 of the rows is an even share of 50 experts.
    """
    rows, experts = gate.rows, gate.rows.experts
    idle, shares = idle_experts(rows), use_shares(rows)
    active = experts - int(idle.sum())
    most = max(active_count(rows), experts // 4)
    if not idle.any() or active > most or active == 0:
        return None
    top = share_interval(float(shares[~idle].sum()) * len(rows), len(rows))
    unused = idle.nonzero().flatten().tolist()
    verb = "has" if active == 1 else "have"
    evidence = (
        f"{active} of {experts} experts {verb} {percent(top.value)} of the use; {list_experts(unused)} "
        f"{'has' if len(unused) == 1 else 'have'} {percent(float(shares[idle].mean()) * experts)} of an even share"
    )
    remedy = (
        "standardise the data, or the gate's input (mb.gates.Standardised): on large inputs the softmax saturates "
        "before anything is learned, and losses on its weights have no gradient; and train the gate with a loss that "
        "balances the experts over the whole batch (batch_entropy, switch_balance)"
    )
    null, model = active / experts, "a balanced random router"
    return Symptom(evidence, top.value, top.low, top.high, null, model, remedy, tuple(unused))
