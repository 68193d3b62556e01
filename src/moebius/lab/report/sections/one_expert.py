"""Score and cost when exactly one expert runs for a row."""

from collections.abc import Mapping
from dataclasses import dataclass

from moebius.lab.report.blocks import Block, Details, Panels, Section, Table, Text
from moebius.lab.report.charts.active_experts import active_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.frames import make_frame
from moebius.lab.report.numbers import (
    NONE,
    count,
    of_seeds,
    p_text,
    rate,
    signed,
    signed_with_interval,
    with_interval,
)
from moebius.lab.report.queries import first_gate_by_seed, measure_by_seed
from moebius.lab.report.source import Study
from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.family import Contrast, correct, difference_of
from moebius.lab.statistics.fieller import fieller
from moebius.lab.statistics.interval import interval

ORDER = 22
# The costs of more variants are behind a line to open.
FEW = 8


@dataclass(frozen=True)
class Scores:
    """The scores of a variant.

    Arguments:
        trained, one_expert: seed → test score as trained, and with exactly one expert; empty where that was not
            measured.
        active: mean number of experts that run for a test row as trained.
        collapsed: number of seeds in which an expert is starved: it wins under a fifth of an even share.
        effective: effective number of experts and their number, as text; None for a single expert.
    """

    trained: Mapping[int, float]
    one_expert: Mapping[int, float]
    active: float
    collapsed: int
    effective: str | None


def section(study: Study) -> Section | None:
    """Score as trained and with one expert, what it costs, and both against each other."""
    ends = (study.recipe.get("report") or {}).get("one_expert") or {}
    scores = {name: of_variant for name in study.variants if (of_variant := _scores_of(study, name)) is not None}
    if not ends or not scores:
        return None
    floor, bound = (scores[ends[end]].trained if ends.get(end) in scores else {} for end in ("floor", "bound"))
    contrasts = _compare(scores, bound, ends["bound"], study.margin)
    columns = ["variant", "as trained", "exactly one expert", f"minus {ends['bound']}, paired", "p (Holm)", "verdict"]
    columns += ["of the gap closed", "active experts", "seeds with an unused expert", "effective experts"]
    rows = [_cells(variant, of_variant, floor, bound, contrasts) for variant, of_variant in scores.items()]
    # One seed gives no p value and no share of the gap.
    several = len(study.seeds) > 1
    kept = [place for place in range(len(columns)) if several or any(row[place] != NONE for row in rows)]
    columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    blocks: list[Block] = [
        Panels([_active_figure(study, scores, ends)]),
        Table(
            f"Test {study.measure} as trained, and with the one expert that each row's gate weighs most",
            columns,
            rows,
        ),
        Text(_explanation(ends, contrasts)),
    ]
    if study.costs:
        costs: list[Block] = [_cost_table(study), Text(COSTS)]
        blocks += [Details("What a test row costs", costs)] if len(study.costs) > FEW else costs
    return Section("one-expert", "With exactly one expert", blocks)


COSTS = (
    "Per test row, the gate's own work counted: multiply-adds of products and convolutions, and time in a batch of "
    "256, the median of nine rounds in which all models take turns. Running only the chosen expert is exact: nothing "
    "is approximated."
)


def _scores_of(study: Study, variant: str) -> Scores | None:
    trained = measure_by_seed(study, variant, study.score, "test")
    one_expert = measure_by_seed(study, variant, "one_expert", study.score)
    first_gates = first_gate_by_seed(study, variant).values()
    active = [gate["active_experts"]["test"] for gate in first_gates]
    if not trained or not active:
        return None
    if all(gate["experts"] == 1 for gate in first_gates):
        one_expert = trained
    where = {"variant": variant, "gate": study.first_gate(variant), "split": "test"}
    collapse, entropy = study.table("collapse", **where), study.table("entropy", **where)
    starved = 0 if collapse.empty else int(collapse.groupby("seed")["starved"].any().sum())
    several = not entropy.empty and entropy["experts"].max() > 1
    effective = f"{entropy['effective_experts'].mean():.1f} of {entropy['experts'].max()}" if several else None
    return Scores(trained, one_expert, sum(active) / len(active), starved, effective)


def _compare(
    scores: Mapping[str, Scores], bound: Mapping[int, float], name: str, margin: float | None
) -> dict[str, Contrast]:
    """Each variant with exactly one expert beside the bound as trained: a family of comparisons of its own."""
    contrasts = [
        Contrast(variant, name, difference_of(of_variant.one_expert, bound), "seeds", margin)
        for variant, of_variant in scores.items()
        if of_variant.one_expert and bound
    ]
    return {contrast.name: contrast for contrast in correct(contrasts)}


def _cells(
    variant: str,
    scores: Scores,
    floor: Mapping[int, float],
    bound: Mapping[int, float],
    contrasts: Mapping[str, Contrast],
) -> list[str]:
    contrast, difference = contrasts.get(variant), NONE
    if contrast is not None and contrast.difference is not None:
        difference = signed_with_interval(contrast.difference)
    elif contrast is not None and scores.one_expert.keys() & bound.keys():
        difference = signed(paired(scores.one_expert, bound).mean)
    return [
        variant,
        with_interval(interval(list(scores.trained.values()))),
        with_interval(interval(list(scores.one_expert.values()))) if scores.one_expert else NONE,
        difference,
        NONE if contrast is None else p_text(contrast.p_holm),
        NONE if contrast is None or contrast.difference is None else contrast.verdict,
        _share_of_gap(scores.one_expert, floor, bound),
        f"{scores.active:.2f}",
        _collapsed(scores) if scores.effective else NONE,
        scores.effective or NONE,
    ]


def _collapsed(scores: Scores) -> str:
    """In how many seeds an expert is unused."""
    if len(scores.trained) == 1:
        return "yes" if scores.collapsed else "no"
    return of_seeds(scores.collapsed, len(scores.trained))


def _share_of_gap(scores: Mapping[int, float], floor: Mapping[int, float], bound: Mapping[int, float]) -> str:
    """The share with its interval; none where that is unbounded, because the gap itself is not shown to exist."""
    seeds = [seed for seed in scores if seed in floor and seed in bound]
    ratio = fieller([scores[seed] - floor[seed] for seed in seeds], [bound[seed] - floor[seed] for seed in seeds])
    if ratio is None or ratio.low is None or ratio.high is None:
        return NONE
    value, low, high = (f"{100 * end:.0f}".replace("-", "−") for end in (ratio.value, ratio.low, ratio.high))
    return f"{value} %" if low == high else f"{value} % [{low}, {high}]"


def _explanation(ends: Mapping[str, str], contrasts: Mapping[str, Contrast]) -> str:
    tested = sum(contrast.p_holm is not None for contrast in contrasts.values())
    floor, bound = ends["floor"], ends["bound"]
    lead = f"“Minus {bound}” compares exactly one expert with {bound} as trained"
    unused = "An expert is unused where it wins under a fifth of an even share of the test rows"
    if not tested:
        return f"{lead}; one seed gives it no test. {unused}."
    return (
        f"{lead}, seed by seed; p is corrected by Holm for the {tested} comparisons of this table, which are a family "
        f"apart from those above. The gap is what {bound} has over {floor}; a share of it stands with Fieller's 95 % "
        f"interval (not corrected), and only where the gap itself is shown to exist. {unused}; shares of seeds have "
        "Clopper and Pearson's 95 % interval."
    )


def _mean(by_seed: Mapping[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


def _cost_table(study: Study) -> Table:
    rows = []
    for variant in (name for name in study.variants if name in study.costs):
        trained, one_expert = (study.costs[variant].get(way) for way in ("as_trained", "one_expert"))
        assert trained is not None
        one_expert = one_expert or trained
        rows.append(
            [
                variant,
                count(trained["multiply_adds"]),
                count(one_expert["multiply_adds"]),
                f"{trained['microseconds']:.1f}",
                f"{one_expert['microseconds']:.1f}",
            ]
        )
    columns = ["variant", "multiply-adds", "with one expert", "µs", "µs with one expert"]
    return Table("What a test row costs", columns, rows)


def _active_figure(study: Study, scores: Mapping[str, Scores], ends: Mapping[str, str]) -> Figure:
    points, descriptions = [], []
    for variant, of_variant in scores.items():
        trained = _mean(of_variant.trained)
        points.append((variant, "as trained", of_variant.active, trained))
        descriptions.append(f"{variant}: {rate(trained)} with {of_variant.active:.1f}")
        if of_variant.one_expert:
            one_expert = _mean(of_variant.one_expert)
            points.append((variant, "exactly one expert", 1.0, one_expert))
            descriptions[-1] += f", {rate(one_expert)} with one"
    frame = make_frame(points, ["variant", "way", "active", "score"])
    caption = (
        f"Test {study.measure} against the mean number of experts that run for a row: filled = as trained, ring = the "
        f"same model with exactly one expert. Dashed: {ends['floor']} and {ends['bound']} as trained. Means over seeds."
    )
    levels = {name: _mean(scores[name].trained) for name in (ends["floor"], ends["bound"]) if name in scores}
    alt_text = f"Test {study.measure} against active experts: {'; '.join(descriptions)}."
    return Figure("one-expert", active_chart(frame, levels, f"test {study.measure}"), caption, alt_text, tall=True)
