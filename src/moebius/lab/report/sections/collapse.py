"""The collapse table."""

from collections.abc import Sequence

from moebius.lab.report.blocks import Section, Table, Text
from moebius.lab.report.numbers import rate
from moebius.lab.report.sections._names import expert_names, title_of
from moebius.lab.report.sections._shared import gates_with
from moebius.lab.report.source import Study

ORDER = 65


def section(study: Study) -> Section | None:
    """Experts that a gate leaves unused, in every run."""
    pairs = gates_with(study, "collapse")
    if not pairs:
        return None
    rows, marked = [], []
    for variant, gate in pairs:
        names = expert_names(study, variant, gate)
        title = title_of(study, variant, gate)
        for seed in study.seeds_of(variant):
            where = {"variant": variant, "gate": gate, "seed": seed, "split": "test"}
            own, entropy = study.table("collapse", **where), study.table("entropy", **where)
            if own.empty:
                continue
            ignored = own.loc[own["ignored"], "expert"].tolist()
            starved = own.loc[own["starved"], "expert"].tolist()
            if ignored or starved:
                marked.append(len(rows))
            effective = f"{entropy['effective_experts'].iloc[0]:.2f} of {len(own)}"
            cells = [title, str(seed), effective, rate(own["load"].min()), rate(own["load"].max())]
            rows.append([*cells, _names(starved, names), _names(ignored, names)])
    if not rows:
        return None
    columns = ["gate", "seed", "effective experts", "smallest load", "largest load", "win under 2 %", "ignored"]
    text = (
        "Load is the share of test images that an expert wins (its gate weight is the largest; a tie is divided). "
        "Effective experts: exp of the entropy of the mean weights. An expert is ignored where its activation rates on "
        "all data sets sum to less than .001. Runs with such experts are marked."
    )
    table = Table("Unused experts, test images", columns, rows, heads=2, marked=marked)
    return Section("collapse", "Collapse", [Text(text), table])


def _names(experts: list[int], names: Sequence[str] | None) -> str:
    return ", ".join(names[expert] if names else str(expert) for expert in experts) or "none"
