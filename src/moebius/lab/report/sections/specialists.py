"""The experts by themselves, and what a gate could make of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.experts_alone import alone_chart
from moebius.lab.report.expert_names import class_list, leaf_name
from moebius.lab.report.numbers import NONE, listing, rate, signed, with_interval
from moebius.lab.report.queries import measure_by_seed, ranking, variant_slugs
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 28
Leaves = Sequence[Mapping[str, Any]]


def section(study: Study) -> Section | None:
    """Each pool of experts once, then what every variant leaves to a perfect gate."""
    leaves = {variant: by_seed for variant in study.variants if (by_seed := _leaves(study, variant))}
    if not leaves:
        return None
    names, blocks = variant_slugs(study), []
    blocks += [
        Text(
            "Every expert classifies all test images alone, without gate and mixture. “Own” are the images of the "
            "classes that it was trained on, “outside” all others; confidence is the mean of its largest probability."
        )
    ]
    for group in _groups(leaves):
        made = _pool(study, group, leaves[group[0]], names[group[0]])
        known = any(leaf_name(expert) or expert.get("frozen") for expert in leaves[group[0]][_first(leaves[group[0]])])
        title = listing(group)
        blocks += [Heading(title), *made] if known else [Details(f"{title}: experts by themselves", made)]
    blocks += _headroom(study, leaves)
    return Section("specialists", "The experts by themselves", blocks)


def _leaves(study: Study, variant: str) -> dict[int, Leaves]:
    """Leaf experts by seed, of a variant that has several."""
    runs = [run for run in study.runs if run["variant"] == variant]
    return {run["seed"]: run["experts_alone"] for run in runs if len(run.get("experts_alone") or ()) > 1}


def _first(by_seed: Mapping[int, Leaves]) -> int:
    return min(by_seed)


def _groups(leaves: Mapping[str, Mapping[int, Leaves]]) -> list[list[str]]:
    """Variants by what their experts do, wherever these sit in the model."""
    groups: list[list[str]] = []
    for variant, by_seed in leaves.items():
        for group in groups:
            other = leaves[group[0]]
            common = by_seed.keys() & other.keys()
            if common and all(_does(by_seed[seed]) == _does(other[seed]) for seed in common):
                group.append(variant)
                break
        else:
            groups.append([variant])
    return groups


def _does(leaves: Leaves) -> list[tuple]:
    return [
        (leaf_name(expert), round(expert["accuracy"], 6), *(_rounded(value) for value in expert.get("by_class") or ()))
        for expert in leaves
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _pool(study: Study, group: Sequence[str], by_seed: Mapping[int, Leaves], name: str) -> list[Block]:
    first = by_seed[_first(by_seed)]
    labels = [leaf_name(expert) or f"expert {place}" for place, expert in enumerate(first)]
    labels = [f"{one} ({place})" if labels.count(one) > 1 else one for place, one in enumerate(labels)]
    measures = {
        "all images": ("accuracy",),
        "own": ("own",),
        "outside": ("outside",),
        "confidence, own": ("confidence", "own"),
        "confidence, outside": ("confidence", "outside"),
    }
    found = {head: [_mean(by_seed, place, keys) for place in range(len(first))] for head, keys in measures.items()}
    found = {head: means for head, means in found.items() if any(mean is not None for mean in means)}
    knows = [class_list(one["classes"], study.classes) if one.get("classes") else "all" for one in first]
    frozen = {bool(one.get("frozen")) for one in first}
    columns = ["expert", "knows", *(["frozen"] if len(frozen) > 1 else []), *found]
    rows = [
        [
            labels[place],
            knows[place],
            *(["yes" if one.get("frozen") else "no"] if len(frozen) > 1 else []),
            *(rate(means[place]) for means in found.values()),
        ]
        for place, one in enumerate(first)
    ]
    over = f", means over {len(by_seed)} seeds" if len(by_seed) > 1 else ""
    state = (
        " They are frozen." if frozen == {True} else " They were trained with the gate." if frozen == {False} else ""
    )
    shared = f"The experts of {listing(list(group))}" + (", which are the same." if len(group) > 1 else ".")
    caption = f"{shared}{state} Test accuracy and confidence of each alone{over}"
    blocks: list[Block] = [Table(caption, columns, rows, heads=2)]
    said = _confidence(found)
    blocks += [Text(said)] if said else []
    figure = alone_chart(study, group, by_seed, labels, f"experts-{name}")
    return [*blocks, *([Panels([figure])] if figure else [])]


def _mean(by_seed: Mapping[int, Leaves], place: int, keys: Sequence[str]) -> float | None:
    found = []
    for leaves in by_seed.values():
        value: Any = leaves[place] if place < len(leaves) else {}
        for key in keys:
            value = (value or {}).get(key)
        found += [] if value is None else [float(value)]
    return statistics.fmean(found) if found else None


def _confidence(found: Mapping[str, Sequence[float | None]]) -> str:
    pairs = zip(found.get("confidence, own", ()), found.get("confidence, outside", ()), strict=False)
    both = [(own, outside) for own, outside in pairs if own is not None and outside is not None]
    if not both:
        return ""
    own, outside = (statistics.fmean(part) for part in zip(*both, strict=True))
    return (
        f"Shown an image of a class that it does not know, an expert still answers with a mean confidence of "
        f"{rate(outside)} ({rate(own)} on its own classes): telling the two apart is what the gate is for."
    )


def _headroom(study: Study, leaves: Mapping[str, Mapping[int, Leaves]]) -> list[Block]:
    oracles = {
        variant: {run["seed"]: run["oracle"] for run in study.runs if run["variant"] == variant and run.get("oracle")}
        for variant in leaves
    }
    shown = [variant for variant in leaves if oracles[variant] and measure_by_seed(study, variant, "accuracy", "test")]
    if not shown:
        return []
    rows, on = [], set()
    for variant in shown:
        accuracy = measure_by_seed(study, variant, "accuracy", "test")
        name, best, split = _best(leaves[variant])
        on.add(split)
        gaps = [oracle - accuracy[seed] for seed, oracle in oracles[variant].items() if seed in accuracy]
        gap = interval(gaps) if gaps else None
        several = (
            f" [{signed(gap.low)}, {signed(gap.high)}]" if gap and gap.low is not None and gap.high is not None else ""
        )
        cells = [interval(list(found.values())) for found in (accuracy, oracles[variant])]
        rows.append([variant, with_interval(cells[0]), name, with_interval(interval(list(best.values())))])
        rows[-1] += [with_interval(cells[1]), f"{signed(gap.mean)}{several}" if gap else NONE]
    columns = ["variant", "test accuracy", "best single expert", "its test accuracy", "oracle gate", "headroom"]
    chosen = {
        frozenset({"validation"}): "The best single expert is chosen on the validation images",
        frozenset({"test"}): "The best single expert is chosen on the test images themselves, which flatters it",
    }.get(
        frozenset(on), "The best single expert is chosen on validation images where there are any, else on test images"
    )
    text = (
        f"{_reading(study, shown, leaves, oracles)} {chosen}. The oracle gate always picks an expert that is right, if "
        "there is one: with experts of few classes that is easy for whoever knows the label, so it is a bound and no "
        "promise. A mixture can pass it, being right where no expert is."
    )
    marked = f", means with 95 % intervals over {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    table = Table(
        f"What is left to the gate{marked}; headroom is the oracle's accuracy minus the variant's", columns, rows
    )
    return [Heading("Headroom"), table, Text(text)]


def _best(by_seed: Mapping[int, Leaves]) -> tuple[str, dict[int, float], str]:
    """Name of the best single expert, its test accuracy by seed, and the split that it was chosen on."""
    given = all(expert.get("validation_accuracy") is not None for leaves in by_seed.values() for expert in leaves)
    key = "validation_accuracy" if given else "accuracy"
    names, scores = [], {}
    for seed, leaves in by_seed.items():
        place = max(range(len(leaves)), key=lambda place: leaves[place][key])
        names.append(leaf_name(leaves[place]) or f"expert {place}")
        scores[seed] = float(leaves[place]["accuracy"])
    return names[0] if len(set(names)) == 1 else "differs by seed", scores, "validation" if given else "test"


def _reading(
    study: Study,
    shown: Sequence[str],
    leaves: Mapping[str, Mapping[int, Leaves]],
    oracles: Mapping[str, Mapping[int, float]],
) -> str:
    variant, score = next((name, score) for name, score in ranking(study) if name in shown)
    oracle = statistics.fmean(oracles[variant].values())
    single = statistics.fmean(_best(leaves[variant])[1].values())
    left = oracle - score.mean
    end = (
        f"for {rate(left)} of them, some expert alone is right where the mixture is wrong, on balance"
        if left > 0
        else "the mixture does better than any choice of one expert could"
    )
    return (
        f"{variant} classifies {rate(score.mean)} of the test images right, its best expert alone {rate(single)} and "
        f"an oracle gate over its experts {rate(oracle)}: {end}."
    )
