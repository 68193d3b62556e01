"""Split of groups: over how many experts the rows of a class, a data set or a position go."""

import numpy as np
import pandas as pd
from scipy.special import entr

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._null import entropy_of
from moebius.lab.diagnostics._rows import RoutedRows

# Draws of a group; of all groups together.
DRAWS, MOST_DRAWS = 50, 5000


class GroupSplit(Measure):
    """Over how many experts each group's rows go: for classes, the class split.

    experts(S) = exp(H(expert | S)),  H of the shares of S whose largest weight is each expert's

    largest(S) is the share of the group's rows that go to the expert that gets most of them.

    Range: experts 1 … E, and at most the rows of the group; largest 1/E … 1.
    Null: its mean for as many rows drawn at random from all rows, a permuted gate, with a fixed seed;
    largest_null likewise. A group in as many experts as its null is not routed by what it is.

    The frame has a line for each grouping and group with rows: by, group, rows, experts, null, largest, largest_null.

    Example:
        >>> import torch
        >>> rows = RoutedRows(torch.eye(2)[[0, 0, 0, 1]], groups={"class": torch.tensor([0, 0, 1, 1])})
        >>> GroupSplit.of(rows)[["group", "experts", "largest"]].round(3).values.tolist()
        [['0', 1.0, 1.0], ['1', 2.0, 0.5]]

    Reference: ours; compare Muennighoff et al. 2024, OLMoE, arXiv:2409.02060, section 5.3.
    """

    requires = ("groups",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows of each group and expert."""
        for by in rows.groups:
            self.add(f"counts.{by}", rows.crosstab(by))

    def frame(self) -> pd.DataFrame:
        """A line for each grouping and group."""
        return self.by_grouping("counts", self._of_grouping)

    def _of_grouping(self, by: str) -> pd.DataFrame:
        counts_GE = self.total(f"counts.{by}")
        rows_G = counts_GE.sum(1)
        present = np.flatnonzero(rows_G)
        # In the order of their size, so that experts of other numbers draw the same loads.
        loads_E, random = np.sort(counts_GE.sum(0)).astype(np.int64), np.random.default_rng(0)
        draws = min(DRAWS, max(5, MOST_DRAWS // max(1, len(present))))
        sizes = rows_G[present].astype(np.int64)
        draws_GNE = np.stack([random.multivariate_hypergeometric(loads_E, size, draws) for size in sizes])
        shares_GE, draws_GNE = (
            values / np.maximum(values.sum(-1, keepdims=True), 1) for values in (counts_GE[present], draws_GNE)
        )
        names = np.asarray(self.group_names(by, len(rows_G)), dtype=object)
        return pd.DataFrame(
            {
                "by": by,
                "group": names[present],
                "rows": rows_G[present].astype(np.int64),
                "experts": np.exp(entropy_of(shares_GE)),
                "null": np.exp(entr(draws_GNE).sum(-1)).mean(1),
                "largest": shares_GE.max(1),
                "largest_null": draws_GNE.max(-1).mean(1),
            }
        )
