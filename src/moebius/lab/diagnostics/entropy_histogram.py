"""Histograms of the gate entropies of single rows."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import check_indices, row_entropies
from moebius.lab.report.figures import COLOURS, WIDTH, Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows


def entropy_histogram(
    weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str], bins: int = 20
) -> pd.DataFrame:
    """Count rows by how many experts they use: entropy 0 is one expert, ln E is all experts with equal weights.

    h(x) = −Σ_e p_e ln p_e,  p = |G(x)| / Σ_e |G(x)_e|;  exp(h) = effective number of experts of a row, in [1, E]

    Arguments:
        weights: gate weights; rows are normalised first.
        groups: index of each row's group into `names`.
        names: names of the groups.
        bins: equal bins over [0, ln E]; with one expert there is the single bin [0, 0].

    Returns:
        Columns group, low, high (nats), experts_low, experts_high (their exponentials: effective experts), rows, share.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
        >>> entropy_histogram(weights, np.array([0, 0, 0]), ["all"], bins=2)["rows"].tolist()
        [1, 2]

    Reference: ours.
    """
    check_indices(groups, names)
    experts = weights.shape[1]
    top, bins = np.log(experts), bins if experts > 1 else 1
    edges = np.linspace(0.0, top, bins + 1)
    scaled_T = row_entropies(weights) * (bins / top if experts > 1 else 1.0)
    # Rows that use n experts with equal weights have entropy ln n up to rounding. Adding 1e-9 keeps them in the bin
    # whose lower end is ln n.
    bin_T = np.clip(scaled_T + 1e-9, 0, bins - 1).astype(np.int64)
    rows_GB = np.bincount(groups * bins + bin_T, minlength=len(names) * bins).reshape(-1, bins)
    rows_G = rows_GB.sum(1)
    present = np.flatnonzero(rows_G)
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], bins),
            "low": np.tile(edges[:-1], len(present)),
            "high": np.tile(edges[1:], len(present)),
            "experts_low": np.tile(np.exp(edges[:-1]), len(present)),
            "experts_high": np.tile(np.exp(edges[1:]), len(present)),
            "rows": rows_GB[present].ravel(),
            "share": (rows_GB[present] / rows_G[present, None]).ravel(),
        }
    )


def table(rows: GateRows) -> Frame:
    """The histogram of each data set."""
    return entropy_histogram(rows.weights, rows.domains, rows.domain_names)


def entropy_figure(frame: Frame, name: str, title: str) -> Figure:
    """A histogram for every data set, for the section of `weight_histogram`.

    Arguments:
        frame: the table's lines of one gate, split, variant and seed.
        name: name of the figure's files.
        title: beginning of the caption.
    """
    domains = list(dict.fromkeys(frame["group"]))
    top = float(frame["high"].max())
    labels = alt.Axis(
        grid=False,
        values=[float(value) for value in np.linspace(0, top, 3)],
        labelExpr="[format(datum.value, '.2f'), '(' + format(exp(datum.value), '.2~f') + ')']",
        labelFlush=False,
    )
    x = alt.X("low:Q", bin="binned", title="entropy of a row in nats (effective experts)", axis=labels)
    y = alt.Y("share:Q", title="share of rows", axis=alt.Axis(tickCount=4, format=".2~f"))
    bars = alt.Chart(frame).mark_bar(binSpacing=0.5, color=COLOURS[2]).encode(x, alt.X2("high:Q"), y)
    one_column = alt.Facet("group:N", sort=domains, title=None)
    chart = bars.properties(width=WIDTH, height=110).facet(one_column, columns=1)
    means = [
        f"{group} {(bins['share'] * (bins['low'] + bins['high']) / 2).sum():.2f}"
        for group, bins in frame.groupby("group", sort=False)
    ]
    caption = f"{title}: entropies of single test rows, by data set; the axis ends where all experts are used alike."
    return Figure(name, chart, caption, f"{caption} Mean in nats: {'; '.join(means)}.")
