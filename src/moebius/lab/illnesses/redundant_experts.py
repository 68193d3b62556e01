"""Redundant experts: they say the same."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import list_experts

# Concordance above which an expert can stand for another.
CEILING = 0.98
# Rows that are compared: E² pairs need no more.
MOST_ROWS = 2000


@illness("MB007", "concordance of the outputs", remedies=("prune_expert",), explains=("balanced but unspecialised",))
def redundant_experts(gate: Examination) -> Symptom | None:
    """Two experts have nearly the same outputs for every row, whoever gets it.

    ρ_ij = 1 − E‖f_i − f_j‖² / (E‖f_i − μ_i‖² + E‖f_j − μ_j‖² + ‖μ_i − μ_j‖²): 1 for equal outputs, about 0 for
    independent ones. The experts are redundant where ρ > .98.

    Null: independent experts: 0.

    Reference: Lin 1989, A Concordance Correlation Coefficient to Evaluate Reproducibility, for several outputs.
    """
    outputs = gate.outputs
    if outputs is None or not outputs.is_floating_point():
        return None
    agreement = concordance(outputs[:MOST_ROWS])
    pairs = (agreement.triu(1) > CEILING).nonzero().tolist()
    if not pairs:
        return None
    experts = sorted({expert for pair in pairs for expert in pair})
    values = torch.tensor([float(agreement[first, second]) for first, second in pairs])
    evidence = (
        f"{list_experts(experts)} give nearly the same outputs for every row ({len(pairs)} "
        f"pair{'s' * (len(pairs) > 1)}, concordance {float(values.min()):.3f} or more)"
    )
    remedy = (
        "drop all but one of them (mb.drop_expert): the others cost memory and decide nothing; or start experts apart "
        "and train them on different rows (best_fit, best_expert)"
    )
    low, high = float(values.min()), float(values.max())
    return Symptom(
        evidence, float(values.mean()), low, high, 0.0, "a pair of independent experts", remedy, tuple(experts)
    )


def concordance(outputs: Float[Tensor, "T E ..."]) -> Float[Tensor, "E E"]:
    """ρ of all pairs of experts.

    Arguments:
        outputs: of each expert for each row.

    Example:
        >>> equal = torch.randn(50, 1, 3).expand(50, 2, 3)
        >>> concordance(equal)[0, 1].item()
        1.0
    """
    flat = outputs.flatten(2).double() if outputs.ndim > 2 else outputs.unsqueeze(2).double()
    flat = flat.nan_to_num(neginf=-100, posinf=100)
    mean = flat.mean(0)
    centred = (flat - mean).transpose(0, 1).flatten(1)
    products = centred @ centred.T / len(flat)
    square = products.diagonal()
    distance = torch.cdist(mean, mean).square()
    spread = square.unsqueeze(0) + square.unsqueeze(1) + distance
    difference = square.unsqueeze(0) + square.unsqueeze(1) - 2 * products + distance
    # Experts that give the same number for all rows are equal, and have no spread.
    return torch.where(spread > 1e-24, 1 - difference / spread.clamp(min=1e-24), 1.0).clamp(max=1)
