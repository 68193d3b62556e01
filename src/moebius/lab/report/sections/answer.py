"""The answer to the study's question in a few computed sentences."""

from moebius.lab.report.blocks import Points, Section
from moebius.lab.report.expert_names import expert_names, title_of
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import listing, rate, with_interval
from moebius.lab.report.queries import at_first_gates, ranking
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate

ORDER = 10
NAMED = 4


def section(study: Study) -> Section | None:
    """The best variants, whether their order is significant, unused experts, and how sharply gates select."""
    points = [*_best_points(study), *_unused_points(study), *_weight_points(study)]
    return Section("answer", "In short", [Points(points)]) if points else None


def _best_points(study: Study) -> list[tuple[str, str]]:
    test = ranking(study)
    if not test:
        return []
    name, score = test[0]
    repeats = f"mean of {score.count} seeds, 95 % interval" if score.count > 1 else "one seed"
    points = [("Best on test:", f"{name} {with_interval(score)} ({repeats}).")]
    if len(test) > 1:
        points.append(_certainty_point(test))
    train = ranking(study, "train")
    if train and len(test) > 1:
        top, top_score = train[0]
        best_on_train = "the same variant" if top == name else top
        points.append(("Best on train:", f"{best_on_train}, {with_interval(top_score)}."))
    return points


def _certainty_point(test: list[tuple[str, Estimate]]) -> tuple[str, str]:
    best = test[0][1]
    overlaps = {name: best.overlaps(score) for name, score in test[1:]}
    unknown = [name for name, overlap in overlaps.items() if overlap is None]
    rivals = [name for name, overlap in overlaps.items() if overlap]
    if len(unknown) == len(overlaps):
        return (
            "Not settled:",
            "there is no interval with one seed, so the order may be chance; run it with --seeds 5.",
        )
    more = len(rivals) - NAMED
    rivals = [*rivals[:NAMED], f"{more} others"] if more > 1 else rivals
    if rivals or unknown:
        parts = [f"the interval overlaps with {listing(rivals)}"] if rivals else []
        parts += [f"{listing(unknown)} ran with one seed"] if unknown else []
        return ("Not settled:", f"{' and '.join(parts)}, so that order may be chance.")
    return ("Clear of the others:", "the interval overlaps with no other variant's.")


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
    return points or (
        [("No expert is unused:", "every expert of every gate wins at least a fifth of an even share.")] * bool(several)
    )


def _describe_unused(unused: Frame, seeds: int, state: str, names: list[str] | None) -> str:
    """The experts by name where they are the same in all seeds that have any, else their number."""
    by_seed = {seed: experts["expert"].tolist() for seed, experts in unused.groupby("seed")}
    sets = {tuple(experts) for experts in by_seed.values()}
    where = f"in {len(by_seed)} of {seeds} seeds" if seeds > 1 else "in its one seed"
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
