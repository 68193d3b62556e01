"""Redundant experts: they say the same."""

from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics.output_similarity import OutputSimilarity
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import list_experts

# Concordance above which an expert can stand for another.
CEILING = 0.98


@illness("MB007", "concordance of the outputs", remedies=("prune_expert",), explains=("balanced but unspecialised",))
def redundant_experts(gate: Examination) -> Symptom | None:
    """Two experts have nearly the same outputs for every row, whoever gets it.

    They are redundant where their concordance is above .98: 1 for equal outputs, about 0 for independent ones
    (`OutputSimilarity`, over the first 2,000 rows).

    Null: independent experts: 0.

    Reference: Lin 1989, A Concordance Correlation Coefficient to Evaluate Reproducibility, for several outputs.
    """
    if gate.outputs is None or not len(gate.outputs):
        return None
    pairs = redundant_pairs(gate.outputs)
    if not pairs:
        return None
    values, experts = [*pairs.values()], sorted({expert for pair in pairs for expert in pair})
    evidence = (
        f"{list_experts(experts)} give nearly the same outputs for every row ({len(pairs)} "
        f"pair{'s' * (len(pairs) > 1)}, concordance {min(values):.3f} or more)"
    )
    remedy = (
        "drop all but one of them (mb.drop_expert): the others cost memory and decide nothing; or start experts apart "
        "and train them on different rows (best_fit, best_expert)"
    )
    mean, model = fmean(values), "a pair of independent experts"
    return Symptom(evidence, mean, min(values), max(values), 0.0, model, remedy, tuple(experts))


def redundant_pairs(outputs: Float[Tensor, "T E D"]) -> dict[tuple[int, int], float]:
    """Pairs of experts that give nearly the same outputs → their concordance.

    Arguments:
        outputs: of each expert for each row; −∞ where an adapter fills other classes with it.
    """
    rows = RoutedRows(torch.ones(outputs.shape[:2]), outputs=outputs.nan_to_num(neginf=-100, posinf=100))
    pairs = OutputSimilarity.of(rows)
    columns = (pairs[name].tolist() for name in ("expert", "other", "concordance"))
    return {(first, second): value for first, second, value in zip(*columns, strict=True) if value > CEILING}
