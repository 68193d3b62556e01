"""Ignored expert: some experts take no part, while others share the rows."""

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import list_experts, percent, share_interval
from moebius.lab.illnesses._use import idle_experts, use_shares


@illness(
    "MB002",
    "largest use of an ignored expert, of an even share",
    remedies=("prune_expert", "cut_to_top_k", "balance"),
    watched=True,
)
def ignored_expert(gate: Examination) -> Symptom | None:
    """An expert has under a twentieth of an even share of the use, and no class or domain is mostly its.

    Null: a balanced random router, where each expert has an even share (1).

    Reference: ours; study 2 calls an expert ignored whose rates are about 0 on all data sets.
    """
    rows, experts = gate.rows, gate.rows.experts
    idle = idle_experts(rows)
    if not idle.any():
        return None
    shares = use_shares(rows) * experts
    ignored = idle.nonzero().flatten().tolist()
    top = max(float(shares[expert]) for expert in ignored)
    share = share_interval(top / experts * len(rows), len(rows), experts)
    evidence = (
        f"{list_experts(ignored)} of {experts} {'has' if len(ignored) == 1 else 'have'} "
        f"{percent(top)} of an even share of the use{' at most' if len(ignored) > 1 else ''}"
    )
    remedy = (
        f"drop {'it' if len(ignored) == 1 else 'them'}, if it knows nothing that the others lack (mb.drop_expert); or "
        "train the gate anew with a loss that balances the experts over the whole batch (batch_entropy)"
    )
    bounds = share.low * experts, share.high * experts
    return Symptom(evidence, top, *bounds, 1.0, "a balanced random router", remedy, tuple(ignored))
