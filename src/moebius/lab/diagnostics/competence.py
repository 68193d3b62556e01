"""Competence: how good each expert is on each group, beside how much the group uses it."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class Competence(Measure):
    """How good each expert is by itself on each group (a class, a data set), beside the share of the group it wins.

    score(S, e) = mean over x in S of the score of e alone;  use(S, e) = share of S whose largest weight is e

    rank_correlation(S) is Spearman's, over the experts, of score and use: 1 where the better expert always gets more of
    the group's rows, 0 for a gate that does not know, and where all scores or all uses are equal.

    Range: score that of the task, for classes 0 … 1; use 0 … 1; rank_correlation −1 … 1.
    Null: the group's score under a uniform choice, mean_e score(S, e); of the rank correlation 0.

    The frame has the columns by (the grouping), group, expert, rows (of the group), score, low and high (95 %), use,
    null, rank_correlation; groups without rows are left out.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> rows = RoutedRows(scores, groups={"class": torch.tensor([0, 0, 1])}, expert_scores=scores)
        >>> Competence.of(rows)[["group", "expert", "score", "use", "null"]]
          group  expert  score  use  null
        0     0       0    1.0  1.0   0.5
        1     0       1    0.0  0.0   0.5
        2     1       0    0.0  0.0   0.5
        3     1       1    1.0  1.0   0.5

    Reference: ours; compare Woods, Kegelmeyer, Bowyer 1997, Combination of Multiple Classifiers Using Local Accuracy
    Estimates (local competence), and Spearman 1904.
    """

    requires = ("groups", "expert_scores")

    def add_rows(self, rows: RoutedRows) -> None:
        """Add scores and wins of each group and expert."""
        assert rows.expert_scores is not None
        scores_TE = rows.expert_scores.double()
        squares_TE = scores_TE.square()
        for by in rows.groups:
            self.add(f"rows.{by}", rows.group_sizes(by))
            self.add(f"wins.{by}", rows.crosstab(by))
            self.add(f"scores.{by}", rows.sum_by_group(by, scores_TE))
            self.add(f"squares.{by}", rows.sum_by_group(by, squares_TE))

    def frame(self) -> pd.DataFrame:
        """A line for each grouping, group and expert."""
        return self.by_grouping("rows", self._of_grouping)

    def _of_grouping(self, by: str) -> pd.DataFrame:
        rows_G = self.total(f"rows.{by}")
        present = np.flatnonzero(rows_G)
        count_G1 = rows_G[present, None]
        score_GE, low_GE, high_GE = mean_interval(
            count_G1, self.total(f"scores.{by}")[present], self.total(f"squares.{by}")[present]
        )
        use_GE = self.total(f"wins.{by}")[present] / count_G1
        names = np.asarray(self.group_names(by, len(rows_G)), dtype=object)
        columns = {"score": score_GE, "low": low_GE, "high": high_GE, "use": use_GE}
        return pd.DataFrame(
            {
                "by": by,
                "group": np.repeat(names[present], self.experts),
                "expert": np.tile(np.arange(self.experts), len(present)),
                "rows": np.repeat(rows_G[present].astype(np.int64), self.experts),
                **{name: values.ravel() for name, values in columns.items()},
                "null": np.repeat(score_GE.mean(1), self.experts),
                "rank_correlation": np.repeat(_rank_correlation(score_GE, use_GE), self.experts),
            }
        )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of lines; equal values share their mean rank."""
    # Scores of equal groups may differ in their last bit.
    ranks = [pd.DataFrame(values.round(12)).rank(axis=1).to_numpy() for values in (first, second)]
    first, second = (values - values.mean(1, keepdims=True) for values in ranks)
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return (first * second).sum(1) / np.where(scale > 0, scale, 1)
