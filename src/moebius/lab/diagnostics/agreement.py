"""Agreement of the experts that rows use with the data sets that they come from."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import check_finite
from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.expert_names import title_of
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows
from moebius.lab.report.numbers import with_interval
from moebius.lab.report.queries import gates_with
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 49


def agreement(weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"]) -> pd.DataFrame:
    """How well the expert with the largest weight tells the group of a row.

    adjusted_information = (I − E[I]) / (mean(H(expert), H(group)) − E[I]): the mutual information of expert and group,
    1 where each tells the other, and 0 on average where experts are drawn at random with the same loads. purity is the
    share of rows whose group is the most frequent one among the rows of their expert.

    Arguments:
        weights: gate weights.
        groups: the group of each row: its data set, its class.

    Returns:
        Columns adjusted_information, purity, groups (their number), experts (that some row uses); one line.

    Example:
        >>> weights = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
        >>> agreement(weights, np.array([1, 1, 0, 0]))[["adjusted_information", "purity"]].to_numpy().tolist()
        [[1.0, 1.0]]

    Reference: Vinh, Epps, Bailey 2010, Information Theoretic Measures for Clusterings Comparison, JMLR 11, with the
    arithmetic mean.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    best_T = check_finite(weights).argmax(1)
    counts = pd.crosstab(best_T, groups).to_numpy()
    return pd.DataFrame(
        {
            "adjusted_information": [float(adjusted_mutual_info_score(groups, best_T))],
            "purity": [float(counts.max(1).sum() / counts.sum())],
            "groups": [counts.shape[1]],
            "experts": [counts.shape[0]],
        }
    )


def table(rows: GateRows) -> Frame | None:
    """The agreement with the data sets; None for a single one."""
    return agreement(rows.weights, rows.domains) if len(rows.domain_names) > 1 else None


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
