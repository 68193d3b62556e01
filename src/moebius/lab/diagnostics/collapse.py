"""Collapse: experts that a gate leaves unused."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics.activation import activation
from moebius.lab.diagnostics.load import load
from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.expert_names import expert_names, title_of
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows
from moebius.lab.report.numbers import rate
from moebius.lab.report.queries import gates_with
from moebius.lab.report.source import Study

ORDER = 65


def collapse(
    weights: Float[np.ndarray, "T E"],
    groups: Int[np.ndarray, " T"],
    names: Sequence[str],
    floor: float = 0.02,
    nothing: float = 1e-3,
) -> pd.DataFrame:
    """Which experts win hardly any row, and which get hardly any weight at all.

    starved_e: load_e < floor;  ignored_e: Σ_S rate(S, e) < nothing, over all groups S

    An expert can be starved and not ignored: it may weigh .4 everywhere and win nowhere.

    Arguments:
        weights: gate weights of at least one row.
        groups: index of each row's group (its data set) into `names`.
        names: names of the groups.
        floor: share of rows below which an expert counts as starved.
        nothing: sum of activation rates below which an expert counts as ignored.

    Returns:
        Columns expert, load, rates (their sum over the groups), starved, ignored. With one expert neither is true.

    Example:
        >>> weights = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]])
        >>> collapse(weights, np.array([0, 1]), ["mnist", "cifar"])[["starved", "ignored"]].values.tolist()
        [[False, False], [True, False], [True, True]]

    Reference: ours; *ignored* as in study 2, *starved* as in study 5.
    """
    rates_GE = np.asarray(activation(weights, groups, names)["rate"]).reshape(-1, weights.shape[1])
    rates_E = rates_GE.sum(0)
    frame = load(weights)[["expert", "load"]]
    several = len(frame) > 1
    return frame.assign(
        rates=rates_E,
        starved=(frame["load"] < floor) & several,
        ignored=(rates_E < nothing) & several,
    )


def table(rows: GateRows) -> Frame:
    """Unused experts over the data sets; a negative weight counts as use."""
    frame = collapse(rows.weights, rows.domains, rows.domain_names)
    if rows.weights.min() >= 0:
        return frame
    # Negative and positive weights cancel in the rates: only an expert whose absolute weights are near 0 is ignored.
    return frame.assign(ignored=collapse(np.abs(rows.weights), rows.domains, rows.domain_names)["ignored"])


def section(study: Study) -> Section | None:
    """The experts that each gate leaves unused, one line for every run."""
    pairs = gates_with(study, "collapse")
    if not pairs:
        return None
    rows, marked = [], []
    for variant, gate in pairs:
        names = expert_names(study, variant, gate)
        title = title_of(study, variant, gate)
        for seed in study.seeds_of(variant):
            where = {"variant": variant, "gate": gate, "seed": seed, "split": "test"}
            experts, entropy = study.table("collapse", **where), study.table("entropy", **where)
            if experts.empty:
                continue
            ignored = experts.loc[experts["ignored"], "expert"].tolist()
            starved = experts.loc[experts["starved"], "expert"].tolist()
            if ignored or starved:
                marked.append(len(rows))
            effective = f"{entropy['effective_experts'].iloc[0]:.2f} of {len(experts)}"
            cells = [title, str(seed), effective, rate(experts["load"].min()), rate(experts["load"].max())]
            rows.append([*cells, _list_experts(starved, names), _list_experts(ignored, names)])
    if not rows:
        return None
    columns = ["gate", "seed", "effective experts", "smallest load", "largest load", "win under 2 %", "ignored"]
    text = (
        "Load is the share of test rows that an expert wins (its gate weight is the largest; a tie is divided). "
        "Effective experts: exp of the entropy of the mean weights. An expert is ignored where its activation rates on "
        "all data sets sum to less than .001. Runs with such experts are marked."
    )
    lines = Table("Unused experts, test rows", columns, rows, heads=2, marked=marked)
    return Section("collapse", "Collapse", [Text(text), lines])


def _list_experts(experts: list[int], names: Sequence[str] | None) -> str:
    return ", ".join(names[expert] if names else str(expert) for expert in experts) or "none"
