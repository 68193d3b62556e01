"""Agreement of the experts that rows use with the data sets that they come from."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._null import entropy_of, expected_information, information_of
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.expert_names import title_of
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows
from moebius.lab.report.numbers import with_interval
from moebius.lab.report.queries import gates_with
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 49


class Agreement(Measure):
    """How well the expert with the largest weight tells the group of a row.

    adjusted_information = (I − E[I]) / (mean(H(expert), H(group)) − E[I]),  I the mutual information of the two

    purity is the share of rows whose group is the most frequent one among the rows of their expert.

    Range: adjusted_information up to 1, where each tells the other; purity 1/G … 1.
    Null: 0 on average, for experts that are drawn at random with the same loads; the column is E[I], in nats.

    The frame has one line: adjusted_information, purity, groups (their number), experts (that some row uses), null.

    Arguments:
        by: the grouping, such as "domain" or "class".

    Example:
        >>> import torch
        >>> weights = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
        >>> rows = RoutedRows(weights, groups={"domain": torch.tensor([1, 1, 0, 0])})
        >>> Agreement.of(rows)[["adjusted_information", "purity"]].to_numpy().round(9).tolist()
        [[1.0, 1.0]]

    Reference: Vinh, Epps, Bailey 2010, Information Theoretic Measures for Clusterings Comparison, JMLR 11, with the
    arithmetic mean.
    """

    requires = ("groups.domain",)

    def __init__(self, by: str = "domain"):
        super().__init__()
        self.by = by
        self.requires = (f"groups.{by}",)  # type: ignore[misc]

    @classmethod
    def table(cls, rows: GateRows) -> Frame | None:
        """The agreement with the data sets; None for a single one."""
        return super().table(rows) if len(rows.domain_names) > 1 else None

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows of each group and expert."""
        self.add("counts", rows.crosstab(self.by))

    def frame(self) -> pd.DataFrame:
        """One line."""
        counts_GE = self.total("counts")
        counts_GE = counts_GE[counts_GE.sum(1) > 0][:, counts_GE.sum(0) > 0]
        chance = expected_information(counts_GE)
        groups, experts = counts_GE.shape
        mean_entropy = (entropy_of(counts_GE.sum(0)) + entropy_of(counts_GE.sum(1))) / 2
        rest = float(mean_entropy) - chance
        smallest = float(np.finfo(float).eps)
        rest = min(rest, -smallest) if rest < 0 else max(rest, smallest)
        same = groups == experts == 1
        return pd.DataFrame(
            {
                "adjusted_information": [1.0 if same else (information_of(counts_GE) - chance) / rest],
                "purity": [float(counts_GE.max(0).sum() / max(counts_GE.sum(), 1))],
                "groups": [groups],
                "experts": [experts],
                "null": [chance],
            }
        )


def section(study: Study) -> Section | None:
    """A line for every gate: whether its experts are those of data sets."""
    frame, pairs = study.table("agreement", split="test"), gates_with(study, "load")
    if frame.empty or not pairs:
        return None
    rows = []
    for variant, gate in pairs:
        of_gate = frame[(frame["variant"] == variant) & (frame["gate"] == gate)]
        measures = [interval([*of_gate[name]]) for name in ("adjusted_information", "purity")]
        rows.append([title_of(study, variant, gate), *map(with_interval, measures), f"{of_gate['experts'].mean():.1f}"])
    over = f", means with 95 % intervals over {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    columns = ["gate", "adjusted mutual information", "purity", "experts that win rows"]
    text = (
        "Whether the expert with the largest weight tells the data set of a row. Adjusted mutual information is 1 "
        "where each tells the other and 0 where rows are sent at random; purity is the share of rows whose data set is "
        "the most frequent one among their expert's rows."
    )
    return Section(
        "agreement", "Do experts follow the data sets?", [Text(text), Table(f"Test rows{over}", columns, rows)]
    )
