"""The first screen: which model to take, how sure that is, and whether the gate pays."""

from collections import defaultdict
from collections.abc import Sequence

from moebius.lab.report.blocks import Block, Details, Panels, Points, Section, Table
from moebius.lab.report.charts.dots import dot_chart
from moebius.lab.report.claims import Claims, make_claims
from moebius.lab.report.controls import Control
from moebius.lab.report.expert_names import expert_names, title_of
from moebius.lab.report.figures import Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import (
    NONE,
    listing,
    names_of,
    of_seeds,
    p_text,
    rate,
    signed,
    signed_bracket,
    with_interval,
)
from moebius.lab.report.queries import at_first_gates, estimate_of, measure_by_seed, ranking
from moebius.lab.report.sentences import first_sentences
from moebius.lab.report.source import Study

ORDER = 10
# Variants in the figure: the best ones, and always the pick and the baseline.
DRAWN = 10
# Variants of which each largest weight is written down.
LISTED = 6


def section(study: Study) -> Section | None:
    """The claims in sentences, one figure; then the controls of the gate, unused experts, how sharp gates are."""
    claims = make_claims(study)
    if claims is None:
        return None
    blocks: list[Block] = [Points(first_sentences(claims, study.measure)), Panels([_figure(study, claims)])]
    controls = () if claims.gate is None else claims.gate.controls
    if claims.gate is not None and controls:
        blocks.append(_control_table(study, claims.gate.mixture, controls))
    more = [*_unused_points(study), *_weight_points(study)]
    blocks += [Details("Unused experts, and how many experts a row uses", [Points(more)])] if more else []
    return Section("answer", "In short", blocks)


def _figure(study: Study, claims: Claims) -> Figure:
    ranked = [name for name, _ in ranking(study)]
    kept = [name for place, name in enumerate(ranked) if place < DRAWN or name in (claims.pick, claims.baseline)]
    scores = {name: measure_by_seed(study, name, study.score, "test") for name in kept}
    chart = dot_chart(study, scores, f"test {study.measure}", kept=kept, baseline=claims.baseline, pick=claims.pick)
    subject = f"Test {study.measure}"
    over = {"seeds": "over seeds", "rows": "over test rows", None: ""}[claims.over]
    bars = f" with 95 % intervals {over}" if over else ""
    rest = f"; {len(kept)} of {len(ranked)} variants" if len(kept) < len(ranked) else ""
    marks = f" Orange: {claims.pick}." if len(kept) > 1 and claims.choice != "largest" else ""
    line = f" Dashed: {claims.baseline}, the baseline." if len(kept) > 1 else ""
    told = "; ".join(f"{name} {with_interval(estimate_of(study, name))}" for name in kept)
    caption = f"{subject}{bars}, the best mean first{rest}.{marks}{line}"
    return Figure("answer", chart, caption, f"{subject}, the best mean first: {told}. Baseline: {claims.baseline}.")


def _control_table(study: Study, mixture: str, controls: Sequence[Control]) -> Table:
    rows = []
    for control in controls:
        contrast = control.contrast
        difference = None if contrast is None else contrast.difference
        name = f"{control.subject} ({control.variant})" if control.variant else control.subject
        cells = [signed(control.gain), signed_bracket(difference) if difference else NONE]
        p = p_text(contrast.p_holm) if contrast is not None else NONE
        rows.append([name, rate(control.estimate.mean), *cells, p, control.verdict])
    columns = ["beside", f"its {study.measure}", f"{mixture} minus it", "95 % interval", "p (Holm)", f"{mixture} is"]
    return Table(f"Does the gate pay? On test rows, {mixture} beside what has no such gate", columns, rows)


def _unused_points(study: Study) -> list[tuple[str, str]]:
    """For ignored and for starved experts a sentence each, which names every gate that has some."""
    frame = study.table("collapse", split="test")
    if frame.empty or not frame.groupby(["variant", "gate"])["expert"].max().gt(0).any():
        return []
    states = {
        "Ignored experts:": frame["ignored"],
        "Starved experts, which win under a fifth of an even share:": frame["starved"] & ~frame["ignored"],
    }
    points = []
    for lead, is_unused in states.items():
        titles: dict[str, list[str]] = defaultdict(list)
        for variant in study.variants:
            of_variant = frame[is_unused & (frame["variant"] == variant)]
            for gate, experts in of_variant.groupby("gate", sort=False):
                seeds = len(study.seeds_of(variant))
                words = _describe_unused(experts, seeds, expert_names(study, variant, str(gate)))
                titles[words].append(title_of(study, variant, str(gate)))
        texts = [f"{names_of(names, 8)}: {words}" for words, names in titles.items()]
        points += [(lead, f"{'; '.join(texts)}.")] if texts else []
    seeds = len(study.seeds)
    where = f", in {seeds} seeds: {of_seeds(0, seeds)} have unused experts" if seeds > 1 else ", in one seed"
    text = f"every expert of every gate wins at least a fifth of an even share{where}."
    return points or [("No expert is unused:", text)]


def _describe_unused(unused: Frame, seeds: int, names: list[str] | None) -> str:
    """The experts by name where they are the same in all seeds that have any, else their number."""
    by_seed = {seed: experts["expert"].tolist() for seed, experts in unused.groupby("seed")}
    sets = {tuple(experts) for experts in by_seed.values()}
    where = f" in {of_seeds(len(by_seed), seeds, 'seeds')}" if seeds > 1 else ""
    if len(sets) == 1 and len(experts := sets.pop()) <= LISTED:
        words = [names[expert] if names else str(expert) for expert in experts]
        return f"{listing(words)}{where}" if names else f"expert{'s' * (len(words) > 1)} {listing(words)}{where}"
    counts = sorted({len(experts) for experts in by_seed.values()})
    amount = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{amount} expert{'s' * (amount != '1')}{where}"


def _weight_points(study: Study) -> list[tuple[str, str]]:
    frame = at_first_gates(study, study.table("entropy", split="test"))
    if frame.empty:
        return []
    means = frame[frame["experts"] > 1].groupby("variant", sort=False)["largest_weight"].mean()
    parts = [f"{variant} {rate(mean)}" for variant, mean in means.items()]
    if len(parts) > LISTED:
        low, high = means.idxmin(), means.idxmax()
        parts = [f"from {rate(means[low])} ({low}) to {rate(means[high])} ({high})"]
    lead = "Does one row use one expert?"
    return [(lead, f"Largest gate weight of the median test row: {', '.join(parts)}.")] if parts else []
