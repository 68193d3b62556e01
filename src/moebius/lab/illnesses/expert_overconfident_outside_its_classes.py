"""Expert overconfident outside its classes: it gets rows of classes that it cannot know, and is certain of them."""

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import FEWEST_ROWS, list_experts, percent, share_interval

CERTAIN = 0.8
# The share of all rows for which an expert answers with a class that it knows.
ANSWERED = 0.001
# The share of an expert's rows that are of other classes, and that it is certain of.
FLOOR = 0.05


@illness("MB012", "share of an expert's rows that it is wrongly certain of", remedies=("refit_gate",))
def expert_overconfident_outside_its_classes(gate: Examination) -> Symptom | None:
    """An expert that knows some classes gets rows of others, and gives them a probability of .8 or more.

    Its classes are those of its adapter. Where that gives none, they are those that it answers with for a thousandth of
    all rows or more.

    Null: an expert that gets rows of its classes, or is uncertain of others: 0.

    Reference: ours; studies 3 and 4 combine experts that know some classes each.
    """
    rows = gate.rows
    if rows.expert_confidence is None or rows.expert_predictions is None or "class" not in rows.groups:
        return None
    labels, chosen = rows.groups["class"], rows.top
    shares: dict[int, tuple[float, float, float]] = {}
    for expert in range(rows.experts):
        index = (chosen == expert).nonzero().flatten()
        if len(index) < FEWEST_ROWS:
            continue
        outside = ~torch.isin(labels[index], _known_classes(gate, expert))
        wrongly = outside & (rows.expert_confidence[index, expert] >= CERTAIN)
        share = share_interval(float(torch.count_nonzero(wrongly)), len(index), rows.experts)
        if share.low >= FLOOR:
            shares[expert] = share.value, share.low, share.high
    if not shares:
        return None
    worst = max(shares.values())
    evidence = (
        f"{list_experts([*shares])} {'gets' if len(shares) == 1 else 'get'} rows of classes that "
        f"{'it does' if len(shares) == 1 else 'they do'} not know, and "
        f"{'is' if len(shares) == 1 else 'are'} certain of {percent(worst[0])} of the rows in spite of it"
    )
    remedy = (
        "train the gate anew, on rows of all classes; an expert that is shown rows of other classes, with an answer of "
        "its own for them, can say that it does not know (outputs: own+other)"
    )
    return Symptom(evidence, *worst, 0.0, "an expert with rows of its classes", remedy, tuple(shares))


def _known_classes(gate: Examination, expert: int) -> torch.Tensor:
    classes = gate.expert_classes[expert] if gate.expert_classes else None
    if classes is not None:
        return torch.tensor(classes)
    predictions = gate.rows.expert_predictions
    assert predictions is not None
    answers = torch.bincount(predictions[:, expert].long())
    return (answers >= ANSWERED * len(gate.rows)).nonzero().flatten()
