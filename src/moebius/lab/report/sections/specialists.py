"""The score of single experts, and of the best gate that could choose between them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Section, Table, Text
from moebius.lab.report.charts.experts_alone import alone_chart
from moebius.lab.report.charts.headroom_dots import headroom_chart
from moebius.lab.report.expert_names import class_list, leaf_name
from moebius.lab.report.figures import Figure
from moebius.lab.report.gate_names import expert_path
from moebius.lab.report.numbers import NONE, listing, rate, signed_with_interval, with_interval
from moebius.lab.report.queries import figure_name, measure_by_seed, ranking
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 28
# Variants in the figure of the headroom.
MOST_LINES = 12
# Entries of `experts_alone` in results.json, one for each leaf expert.
Leaves = Sequence[Mapping[str, Any]]
# Means of seeds that are equal differ by rounding.
EQUAL = 1e-9


def section(study: Study) -> Section | None:
    """Each pool of experts once, then for every variant the score that a perfect gate would add."""
    leaves = {variant: by_seed for variant in study.variants if (by_seed := _leaves_by_seed(study, variant))}
    if not leaves:
        return None
    blocks: list[Block] = [
        Text(
            "Every expert does all test rows alone, without gate and mixture."
            + " “Own” are the rows of the classes that it was trained on, “outside” all others; confidence is the mean "
            "of its largest probability." * (study.score == "accuracy")
        )
    ]
    for group in _group_variants(study.score, leaves):
        by_seed = leaves[group[0]]
        pool = _pool_blocks(study, group, by_seed)
        trained_before = any(leaf_name(expert) or expert.get("frozen") for expert in _first_seed(by_seed))
        title = listing(group)
        blocks += [Heading(title), *pool] if trained_before else [Details(f"{title}: experts by themselves", pool)]
    blocks += _headroom_blocks(study, leaves)
    return Section("specialists", "The experts by themselves", blocks)


def _leaves_by_seed(study: Study, variant: str) -> dict[int, Leaves]:
    """Seed → leaf experts, for the runs of a variant that have several."""
    runs = [run for run in study.runs if run["variant"] == variant]
    return {run["seed"]: run["experts_alone"] for run in runs if len(run.get("experts_alone") or ()) > 1}


def _first_seed(by_seed: Mapping[int, Leaves]) -> Leaves:
    return by_seed[min(by_seed)]


def _group_variants(score: str, leaves: Mapping[str, Mapping[int, Leaves]]) -> list[list[str]]:
    """Groups of variants whose experts have the same names and scores, wherever these are in the model."""
    groups: list[list[str]] = []
    for variant, by_seed in leaves.items():
        for group in groups:
            of_group = leaves[group[0]]
            common = by_seed.keys() & of_group.keys()
            same = (_results_of(score, by_seed[seed]) == _results_of(score, of_group[seed]) for seed in common)
            if common and all(same):
                group.append(variant)
                break
        else:
            groups.append([variant])
    return groups


def _results_of(score: str, leaves: Leaves) -> list[tuple]:
    return [
        (leaf_name(expert), round(expert[score], 6), *(_rounded(value) for value in expert.get("by_class") or ()))
        for expert in leaves
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _pool_blocks(study: Study, group: Sequence[str], by_seed: Mapping[int, Leaves]) -> list[Block]:
    experts = _first_seed(by_seed)
    labels = [leaf_name(expert) or f"expert {place}" for place, expert in enumerate(experts)]
    labels = [f"{label} ({place})" if labels.count(label) > 1 else label for place, label in enumerate(labels)]
    measures = {
        "all rows": (study.score,),
        "own": ("own",),
        "outside": ("outside",),
        "confidence, own": ("confidence", "own"),
        "confidence, outside": ("confidence", "outside"),
    }
    means = {head: [_mean(by_seed, place, keys) for place in range(len(experts))] for head, keys in measures.items()}
    means = {head: values for head, values in means.items() if any(value is not None for value in values)}
    frozen = {bool(expert.get("frozen")) for expert in experts}
    columns = ["expert", "knows", *(["frozen"] if len(frozen) > 1 else []), *means]
    rows = [
        [
            labels[place],
            class_list(expert["classes"], study.classes) if expert.get("classes") else "all",
            *(["yes" if expert.get("frozen") else "no"] if len(frozen) > 1 else []),
            *(rate(values[place]) for values in means.values()),
        ]
        for place, expert in enumerate(experts)
    ]
    over = f", means over {len(by_seed)} seeds" if len(by_seed) > 1 else ""
    state = (
        " They are frozen." if frozen == {True} else " They were trained with the gate." if frozen == {False} else ""
    )
    subject = f"The experts of {listing(list(group))}" + (", which are the same." if len(group) > 1 else ".")
    measured = f"{study.measure} and confidence" if study.classes else study.measure
    caption = f"{subject}{state} Test {measured} of each alone{over}"
    blocks: list[Block] = [Table(caption, columns, rows, heads=2)]
    confidence = _confidence_text(means)
    blocks += [Text(confidence)] if confidence else []
    # Experts that are no mixtures stand beside the rates of their gate, in the section about activation.
    gate = study.first_gate(group[0])
    flat = {expert_path(gate, place) for place in range(len(experts))} if gate else set()
    if all(flat & set(expert["paths"]) for expert in experts):
        return blocks
    figure = alone_chart(study, group, by_seed, labels, figure_name(study, "experts", group[0]))
    return [*blocks, *([Panels([figure])] if figure else [])]


def _mean(by_seed: Mapping[int, Leaves], place: int, keys: Sequence[str]) -> float | None:
    """Mean over seeds of the value under nested keys in the entry of the expert at a place."""
    values = []
    for leaves in by_seed.values():
        value: Any = leaves[place] if place < len(leaves) else {}
        for key in keys:
            value = (value or {}).get(key)
        values += [] if value is None else [float(value)]
    return statistics.fmean(values) if values else None


def _confidence_text(means: Mapping[str, Sequence[float | None]]) -> str:
    pairs = zip(means.get("confidence, own", ()), means.get("confidence, outside", ()), strict=False)
    both = [(inside, outside) for inside, outside in pairs if inside is not None and outside is not None]
    if not both:
        return ""
    inside, outside = (statistics.fmean(part) for part in zip(*both, strict=True))
    return (
        f"Shown a row of a class that it does not know, an expert still answers with a mean confidence of "
        f"{rate(outside)} ({rate(inside)} on its own classes): telling the two apart is what the gate is for."
    )


def _headroom_blocks(study: Study, leaves: Mapping[str, Mapping[int, Leaves]]) -> list[Block]:
    oracles = {
        variant: {run["seed"]: run["oracle"] for run in study.runs if run["variant"] == variant and run.get("oracle")}
        for variant in leaves
    }
    shown = [variant for variant in leaves if oracles[variant] and measure_by_seed(study, variant, study.score, "test")]
    if not shown:
        return []
    rows, chosen_on, marks = [], set(), {}
    for variant in shown:
        of_variant = measure_by_seed(study, variant, study.score, "test")
        name, best, split = _best_expert(study.score, leaves[variant])
        chosen_on.add(split)
        gaps = [oracle - of_variant[seed] for seed, oracle in oracles[variant].items() if seed in of_variant]
        gap = interval(gaps) if gaps else None
        scores = [interval(list(by_seed.values())) for by_seed in (of_variant, best, oracles[variant])]
        uniform = interval(
            [statistics.fmean(expert[study.score] for expert in each) for each in leaves[variant].values()]
        )
        marks[variant] = {
            "a random expert": uniform.mean,
            **dict(zip(("mixture", "best single expert", "oracle"), (each.mean for each in scores), strict=True)),
        }
        rows.append([variant, with_interval(scores[0]), with_interval(uniform), name, with_interval(scores[1])])
        rows[-1] += [with_interval(scores[2]), signed_with_interval(gap) if gap else NONE]
    score = f"test {study.measure}"
    columns = ["variant", score, "a random expert", "best single expert", f"its {score}", "oracle gate", "headroom"]
    choice = {
        frozenset({"validation"}): "The best single expert is chosen on the validation rows",
        frozenset({"test"}): "The best single expert is chosen on the test rows themselves, which flatters it",
    }.get(
        frozenset(chosen_on),
        "The best single expert is chosen on validation rows where there are any, else on test rows",
    )
    text = (
        f"{_summary_sentence(study, shown, leaves, oracles)} {choice}. The oracle gate always picks the expert that "
        "does best, knowing the target, so it is a bound and no promise"
        + (": with experts of few classes that is easy for whoever knows the label" if study.classes else "")
        + ". A mixture can pass it, doing well where no expert does."
    )
    with_intervals = f", means with 95 % intervals over {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    table = Table(
        f"What is left to the gate{with_intervals}; headroom is the oracle's score minus the variant's",
        columns,
        rows,
    )
    return [Heading("Headroom"), Text(text), Panels([_headroom_figure(study, marks)]), table]


def _headroom_figure(study: Study, marks: Mapping[str, Mapping[str, float]]) -> Figure:
    """The variants with the best scores, each on a line."""
    order = sorted(marks, key=lambda variant: -marks[variant]["mixture"])[:MOST_LINES]
    chosen = {variant: marks[variant] for variant in marks if variant in order}
    left = f" The {len(order)} best of {len(marks)} variants." if len(order) < len(marks) else ""
    caption = f"Headroom: what the mixture reaches, beside choices of one of its experts for every row.{left}"
    texts = "; ".join(
        f"{variant}: {', '.join(f'{name} {rate(value)}' for name, value in of.items())}"
        for variant, of in chosen.items()
    )
    return Figure("headroom", headroom_chart(chosen, f"test {study.measure}"), caption, f"{caption} {texts}.")


def _best_expert(score: str, by_seed: Mapping[int, Leaves]) -> tuple[str, dict[int, float], str]:
    """Name of the best single expert, its test score by seed, and the split on which it was chosen."""
    held_out = f"validation_{score}"
    validated = all(expert.get(held_out) is not None for leaves in by_seed.values() for expert in leaves)
    key = held_out if validated else score
    names, scores = [], {}
    for seed, leaves in by_seed.items():
        place = max(range(len(leaves)), key=lambda place: leaves[place][key])
        names.append(leaf_name(leaves[place]) or f"expert {place}")
        scores[seed] = float(leaves[place][score])
    return names[0] if len(set(names)) == 1 else "differs by seed", scores, "validation" if validated else "test"


def _summary_sentence(
    study: Study,
    shown: Sequence[str],
    leaves: Mapping[str, Mapping[int, Leaves]],
    oracles: Mapping[str, Mapping[int, float]],
) -> str:
    variant, score = next((name, score) for name, score in ranking(study) if name in shown)
    oracle = statistics.fmean(oracles[variant].values())
    single = statistics.fmean(_best_expert(study.score, leaves[variant])[1].values())
    left = oracle - score.mean
    if study.score != "accuracy":
        return (
            f"{variant} has a test {study.measure} of {rate(score.mean)}, its best expert alone {rate(single)} and an "
            f"oracle gate over its experts {rate(oracle)}."
        )
    if abs(left) < EQUAL:
        end = "no choice of one expert would do better"
    elif left > 0:
        end = f"for {rate(left)} of them, some expert alone is right where the mixture is wrong, on balance"
    else:
        end = "the mixture does better than any choice of one expert could"
    return (
        f"{variant} classifies {rate(score.mean)} of the test rows right, its best expert alone {rate(single)} and "
        f"an oracle gate over its experts {rate(oracle)}: {end}."
    )
