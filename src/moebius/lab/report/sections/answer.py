"""The answer to the study's question in a few computed sentences."""

from moebius.lab.report.blocks import Points, Section
from moebius.lab.report.expert_names import expert_names, title_of
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import listing, of_seeds, rate, with_interval
from moebius.lab.report.queries import at_first_gates, ranking
from moebius.lab.report.source import Study
from moebius.lab.report.verdicts import verdict_points
from moebius.lab.statistics.interval import Estimate
from moebius.lab.statistics.row_interval import row_interval

ORDER = 10


def section(study: Study) -> Section | None:
    """What the comparisons with the baseline show, what held-out rows choose, unused experts, how sharp gates are."""
    points = [*_score_points(study), *_unused_points(study), *_weight_points(study)]
    return Section("answer", "In short", [Points(points)]) if points else None


def _score_points(study: Study) -> list[tuple[str, str]]:
    test, family = ranking(study), study.family
    if not test:
        return []
    name, estimate = test[0]
    if len(test) == 1:
        return [(f"Test {study.measure}:", f"{name} {_score_text(study, name, estimate)}.")]
    points = verdict_points(family) if family is not None else []
    chosen = dict(test).get(family.chosen) if family is not None and family.chosen is not None else None
    if family is not None and chosen is not None and family.chosen is not None:
        score = _score_text(study, family.chosen, chosen)
        points.append(("Chosen on held-out rows:", f"{family.chosen}; on test, which chose nothing, it has {score}."))
    else:
        score = _score_text(study, name, estimate)
        rest = f"{name}, {score}. The largest of {len(test)} means is partly chance, and no finding by itself"
        points.append(("Largest mean on test:", f"{rest}; held-out rows (data.validation) can choose."))
    if len(study.seeds) == 1:
        points.append(("One seed:", "this is about the models as trained; their order may change with the next seed."))
    return points


def _score_text(study: Study, name: str, estimate: Estimate) -> str:
    """A score with its interval, and what the interval is over."""
    if estimate.count > 1:
        return f"{with_interval(estimate)} (mean of {estimate.count} seeds, 95 % interval)"
    if name not in study.row_scores:
        return f"{rate(estimate.mean)} (one seed)"
    over_rows = row_interval(study.row_scores[name])
    return f"{with_interval(over_rows)} (one seed; 95 % interval over {over_rows.count:,} test rows)"


def _unused_points(study: Study) -> list[tuple[str, str]]:
    frame = study.table("collapse", split="test")
    if frame.empty:
        return []
    points = []
    for (variant, gate), experts in frame.groupby(["variant", "gate"], sort=False):
        lead = f"{title_of(study, str(variant), str(gate))}:"
        seeds, names = experts["seed"].nunique(), expert_names(study, str(variant), str(gate))
        ignored = experts[experts["ignored"]]
        starved = experts[experts["starved"] & ~experts["ignored"]]
        for state, unused in (("ignored", ignored), ("win under a fifth of an even share", starved)):
            if len(unused):
                points.append((lead, _describe_unused(unused, seeds, state, names)))
    order = {variant: place for place, variant in enumerate(study.variants)}
    points.sort(key=lambda point: order.get(point[0].split(",")[0].removesuffix(":"), 0))
    several = frame.groupby(["variant", "gate"])["expert"].max().gt(0).any()
    seeds = len(study.seeds)
    where = f", in {seeds} seeds: {of_seeds(0, seeds)} have unused experts" if seeds > 1 else ", in one seed"
    text = f"every expert of every gate wins at least a fifth of an even share{where}."
    return points or [("No expert is unused:", text)] * bool(several)


def _describe_unused(unused: Frame, seeds: int, state: str, names: list[str] | None) -> str:
    """The experts by name where they are the same in all seeds that have any, else their number."""
    by_seed = {seed: experts["expert"].tolist() for seed, experts in unused.groupby("seed")}
    sets = {tuple(experts) for experts in by_seed.values()}
    where = f"in {of_seeds(len(by_seed), seeds, 'seeds')}" if seeds > 1 else "in its one seed"
    if len(sets) == 1:
        experts = [names[expert] if names else str(expert) for expert in sets.pop()]
        verb = ("is ignored" if len(experts) == 1 else "are ignored") if state == "ignored" else state
        verb = verb.replace("win ", "wins ") if len(experts) == 1 else verb
        return f"expert{'s' * (len(experts) > 1)} {listing(experts)} {verb} {where}."
    counts = sorted({len(experts) for experts in by_seed.values()})
    amount = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    verb = state if state != "ignored" else "are ignored"
    verb = verb.replace("are ", "is ").replace("win ", "wins ") if amount == "1" else verb
    return f"{amount} expert{'s' * (amount != '1')} {verb} {where} (which ones differs by seed)."


def _weight_points(study: Study) -> list[tuple[str, str]]:
    frame = at_first_gates(study, study.table("entropy", split="test"))
    if frame.empty:
        return []
    frame = frame[frame["experts"] > 1]
    parts = [
        f"{variant} {rate(seeds['largest_weight'].mean())}"
        for variant, seeds in frame.groupby("variant", sort=False)
        if len(seeds)
    ]
    lead = "Does one row use one expert?"
    return [(lead, f"Largest gate weight of the median test row: {', '.join(parts)}.")] if parts else []
