"""Specialisation: how much the chosen expert and the group of a row tell of each other."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._null import entropy_of, expected_information, information_of
from moebius.lab.diagnostics._rows import RoutedRows


class Specialisation(Measure):
    """How much the expert with the largest weight tells of a row's group, and the group of its expert.

    I(expert; group) = Σ_eg p_eg ln (p_eg / (p_e · p_g)),  share = I / min(H(expert), H(group))

    purity is the share of rows whose group is the most frequent one among the rows of their expert. For a perfect
    partition of the groups I = H(group): 64 experts with equal loads may have I = 0, a balanced and unspecialised gate.

    Range: 0 … min(ln E, ln G) nats; share 0 … 1; purity 1/G … 1.
    Null: the mean information of experts and groups of the same frequencies that are assigned at random: up to 20,000
    rows over all permutations, exactly, of more rows (E − 1)(G − 1) / 2T; share_null likewise. purity_null is the share
    of the largest group, which a permuted gate has but for chance.

    The frame has a line for each grouping: by, information, low and high (95 %), null, share, share_null, purity,
    purity_null, groups, experts (that occur), rows.

    Example:
        >>> import torch
        >>> rows = RoutedRows(torch.eye(2)[[0, 0, 1, 1]], groups={"class": torch.tensor([0, 1, 2, 3])})
        >>> Specialisation.of(rows)[["information", "null", "share", "purity"]].round(3).values.tolist()
        [[0.693, 0.693, 1.0, 0.5]]

    Reference: Shannon 1948; Vinh, Epps, Bailey 2010, JMLR 11, for the null; Miller 1955, Note on the Bias of
    Information Estimates, for that of many rows.
    """

    requires = ("groups",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows of each group and expert."""
        for by in rows.groups:
            self.add(f"counts.{by}", rows.crosstab(by))

    def frame(self) -> pd.DataFrame:
        """A line for each grouping that has rows."""
        counts = {by: self.total(f"counts.{by}") for by in self.groupings("counts")}
        return pd.DataFrame([{"by": by, **_line(counts_GE)} for by, counts_GE in counts.items()])


def _line(counts_GE: np.ndarray) -> dict[str, float | int]:
    rows, groups_G, experts_E = counts_GE.sum(), counts_GE.sum(1), counts_GE.sum(0)
    information, null = information_of(counts_GE), expected_information(counts_GE)
    expected_GE = np.outer(groups_G, experts_E) / rows
    # Σ n (ln (n / expected))², the sum over rows of their squared pointwise information.
    pointwise_GE = np.log(np.where(counts_GE > 0, counts_GE, 1) / np.where(counts_GE > 0, expected_GE, 1))
    _, low, high = mean_interval(rows, information * rows, (counts_GE * pointwise_GE**2).sum())
    most = min(float(entropy_of(groups_G)), float(entropy_of(experts_E)))
    scale = most if most > 0 else 1.0
    return {
        "information": information,
        "low": max(0.0, float(low)),
        "high": float(high),
        "null": null,
        "share": information / scale,
        "share_null": null / scale,
        "purity": float(counts_GE.max(0).sum() / rows),
        "purity_null": float(groups_G.max() / rows),
        "groups": int((groups_G > 0).sum()),
        "experts": int((experts_E > 0).sum()),
        "rows": int(rows),
    }
