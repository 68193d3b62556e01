"""Misrouted rows: another expert is better on the rows that one gets."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import FEWEST_ROWS, mean_interval

# The part of all rows' loss that swapping the expert of one group of rows has to save.
FLOOR = 0.03
# Mean largest weight above which a row has one expert that answers for it.
DECIDED = 0.8


@illness("MB017", "loss saved by another expert, of the loss", remedies=("refit_gate",))
def misrouted_rows(gate: Examination) -> Symptom | None:
    """On the rows that an expert gets, one certain other expert has less loss, at equal work.

    For each expert e and other expert j the losses of e and j are paired on the rows of e (Bonferroni over all pairs).
    The best j counts, not the best for each row: an oracle would always gain something.

    Null: a gate that sends rows to the better one: at most 0.

    Reference: ours; after counterfactual routing, arXiv:2605.07260.
    """
    rows = gate.rows
    if rows.expert_losses is None or (rows.k < rows.experts - 1 and rows.expert_scores is None) or not gate.decides:
        return None
    losses, chosen = rows.expert_losses.double(), rows.top
    total = float(losses.gather(1, chosen.unsqueeze(1)).abs().mean().clamp(min=1e-12))
    pairs = rows.experts * (rows.experts - 1)
    worst: tuple[float, int, int, float, float] | None = None
    for expert in range(rows.experts):
        index = (chosen == expert).nonzero().flatten()
        if len(index) < FEWEST_ROWS:
            continue
        saved = losses[index, expert].unsqueeze(1) - losses[index]
        rival = int(saved.mean(0).argmax())
        gain = mean_interval(saved[:, rival], pairs)
        share = len(index) / len(rows) / total
        better = rows.expert_scores is None or _scores_better(gate, index, expert, rival)
        if gain.low > 0 and gain.value * share >= FLOOR and better and (worst is None or gain.value * share > worst[0]):
            worst = gain.value * share, expert, rival, gain.low * share, gain.high * share
    if worst is None:
        return None
    saved, expert, rival, low, high = worst
    part = float((chosen == expert).double().mean())
    evidence = (
        f"expert {rival} is better than expert {expert} on the rows of expert {expert} ({part:.0%} of all): it would "
        f"save {saved:.0%} of the loss"
    ).replace("%", " %")
    remedy = (
        "train the gate anew with the experts as they are; if it cannot tell these rows apart, give it a better input"
    )
    return Symptom(evidence, saved, low, high, 0.0, "a gate that sends rows to the better one", remedy, (expert, rival))


def _scores_better(gate: Examination, index: torch.Tensor, expert: int, rival: int) -> bool:
    assert gate.rows.expert_scores is not None
    scores = gate.rows.expert_scores[index].double()
    return float((scores[:, rival] - scores[:, expert]).mean()) > 0.01
