"""Rows that another expert would have served better."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._intervals import FEWEST_ROWS, Mean, mean_interval


def wrong_choices(rows: RoutedRows) -> Float[Tensor, " T"] | None:
    """What each row's score would gain by another expert, where the gate could know it; 0 elsewhere.

    For single rows some expert is right by luck. So rows are compared in groups that the gate itself makes: those with
    the same first and the same second expert. In each group one expert has the least mean loss; it counts where it is
    shown to beat the first one (Bonferroni over the experts), with the differences of the scores of the group's rows.

    Arguments:
        rows: with losses and scores of each expert; without them the result is None.
    """
    if rows.expert_losses is None or rows.expert_scores is None:
        return None
    losses, scores = rows.expert_losses.double(), rows.expert_scores.double()
    first = rows.top
    second = rows.probs.scatter(1, first.unsqueeze(1), -torch.inf).argmax(1)
    group = first * rows.experts + second
    # Rows whose group is too small to tell anything come together, with the others of their first expert.
    small = torch.bincount(group, minlength=rows.experts**2)[group] < FEWEST_ROWS
    group = torch.where(small, first * rows.experts + first, group)
    gains = torch.zeros(len(rows), dtype=torch.float64)
    for number in torch.unique(group).tolist():
        index = (group == number).nonzero().flatten()
        if len(index) < FEWEST_ROWS:
            continue
        expert = number // rows.experts
        saved = losses[index, expert].unsqueeze(1) - losses[index]
        best = int(saved.mean(0).argmax())
        if mean_interval(saved[:, best], rows.experts).low > 0:
            gains[index] = scores[index, best] - scores[index, expert]
    return gains


def gain_of_right_choices(rows: RoutedRows) -> Mean | None:
    """What the mean score would gain by the right expert for such groups."""
    gains = wrong_choices(rows)
    return None if gains is None else mean_interval(gains)
