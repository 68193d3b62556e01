"""Whether reports name differences that are none, and find those that are there: simulated studies.

    python benchmarks/null_studies.py [--repetitions 2000] [--json PATH]

A simulated study has the scores of V variants at S seeds: a part that all variants share at a seed (its order of rows,
its start), and a part of each run's own. It goes through `compare_variants`, the function that report, terminal,
`results.json` and `moebius compare` read. Printed are the shares of studies

- without any difference that name one, for 4, 8 and 14 variants of 5 seeds, and three kinds of runs: all vary alike;
  variants vary unequally; in a seed of five a run collapses;
- the same by the rule of earlier reports' tables: each variant beside the best on test, uncorrected;
- with one planted difference that name it, beside the power that `moebius plan` foretells;
- with two variants that differ by just the margin, or not at all, that call them level.

Standard deviations are those of the recipe one-active: .008 over seeds, .005 of a run beside its seed.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from moebius.lab.report.comparisons import compare_variants
from moebius.lab.report.source import SCHEMA, Study
from moebius.lab.statistics.clopper_pearson import clopper_pearson
from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.family import LEVEL, Family
from moebius.lab.statistics.power import equivalence_power, power, seeds_for_equivalence, seeds_needed

SHARED, OWN, MEAN = 0.008, 0.005, 0.7
# Of the difference of two runs at a seed.
SD = OWN * 2**0.5
SIZES = (4, 8, 14)
SEEDS = 5
COLLAPSES, DEPTH = 0.2, 0.05

Scores = Float[np.ndarray, "V S"]


def draw_alike(random: np.random.Generator, variants: int, seeds: int) -> Scores:
    """Scores of which all vary alike."""
    return MEAN + random.normal(0, SHARED, (1, seeds)) + random.normal(0, OWN, (variants, seeds))


def draw_unequal(random: np.random.Generator, variants: int, seeds: int) -> Scores:
    """Scores of which some variants vary four times as much as others."""
    scale = OWN * np.linspace(0.5, 2, variants)[random.permutation(variants), None]
    return MEAN + random.normal(0, SHARED, (1, seeds)) + scale * random.normal(size=(variants, seeds))


def draw_collapsing(random: np.random.Generator, variants: int, seeds: int) -> Scores:
    """Scores of which one of five falls by .05, whatever its seed and variant."""
    return draw_alike(random, variants, seeds) - DEPTH * (random.random((variants, seeds)) < COLLAPSES)


KINDS: Mapping[str, Callable[[np.random.Generator, int, int], Scores]] = {
    "alike": draw_alike,
    "unequal": draw_unequal,
    "collapsing": draw_collapsing,
}


def make_study(scores: Scores, margin: float | None = None) -> Study:
    """A study whose runs have these test scores."""
    names = [f"variant-{number}" for number in range(len(scores))]
    about = {"schema": SCHEMA, "recipe": {"variants": {name: {} for name in names}, "margin": margin}}
    runs = tuple(
        {"variant": name, "seed": seed, "accuracy": {"test": float(score)}}
        for name, of_variant in zip(names, scores, strict=True)
        for seed, score in enumerate(of_variant)
    )
    return Study(Path(), about, runs)


def compare(scores: Scores, margin: float | None = None) -> Family:
    """The comparisons of a study with these scores, as its report shows them."""
    family = compare_variants(make_study(scores, margin))
    assert family is not None
    return family


def names_a_difference(scores: Scores) -> bool:
    """Whether the report says of any variant that it is better or worse."""
    return any(contrast.verdict in ("better", "worse") for contrast in compare(scores).contrasts)


def names_one_beside_the_best(scores: Scores) -> bool:
    """Whether a variant is worse than the best on test at p < .05, as a table of paired intervals shows it."""
    best = int(scores.mean(1).argmax())
    others = (place for place in range(len(scores)) if place != best)
    return any((paired(scores[place].tolist(), scores[best].tolist()).p or 1) < LEVEL for place in others)


def share(hits: Sequence[bool]) -> dict[str, float]:
    """The share of studies with its 95 % interval."""
    low, high = clopper_pearson(sum(hits), len(hits))
    return {"share": sum(hits) / len(hits), "low": low, "high": high}


def null_shares(repetitions: int, sizes: Sequence[int] = SIZES, seed: int = 0) -> list[dict[str, Any]]:
    """The shares of studies without any difference that name one."""
    lines = []
    for kind, draw in KINDS.items():
        for variants in sizes:
            random = np.random.default_rng([seed, variants, len(kind)])
            drawn = [draw(random, variants, SEEDS) for _ in range(repetitions)]
            named, before = ([rule(each) for each in drawn] for rule in (names_a_difference, names_one_beside_the_best))
            lines.append({"kind": kind, "variants": variants, **share(named), "before": sum(before) / repetitions})
    return lines


def power_shares(
    repetitions: int, sizes: Sequence[int] = SIZES, differences: Sequence[float] = (0.005, 0.01), seed: int = 1
) -> list[dict[str, Any]]:
    """The shares of studies that find a planted difference, and the power that was foretold for their seeds."""
    lines = []
    for variants in sizes:
        for difference in differences:
            level = LEVEL / (variants - 1)
            for seeds in (SEEDS, seeds_needed(difference, SD, 0.8, level)):
                random = np.random.default_rng([seed, variants, seeds])
                named = []
                for _ in range(repetitions):
                    scores = draw_alike(random, variants, seeds)
                    scores[1] += difference
                    named.append(compare(scores).contrasts[0].verdict == "better")
                foretold = power(difference, SD, seeds, level)
                line = {"variants": variants, "difference": difference, "seeds": seeds, "foretold": foretold}
                lines.append({**line, **share(named)})
    return lines


def level_shares(repetitions: int, sizes: Sequence[int] = SIZES, margin: float = 0.005, seed: int = 2) -> list[dict]:
    """The shares of studies that call a variant level: all differ by the margin; or the first not at all."""
    lines = []
    for variants in sizes:
        level = LEVEL / (variants - 1)
        seeds = seeds_for_equivalence(margin, SD, 0.8, level)
        for true in (margin, 0.0):
            random = np.random.default_rng([seed, variants, seeds])
            called = []
            for _ in range(repetitions):
                scores = draw_alike(random, variants, seeds)
                scores[1:] += margin
                scores[1] += true - margin
                contrasts = compare(scores, margin).contrasts
                called.append(any(each.is_level for each in (contrasts if true else contrasts[:1])))
            foretold = LEVEL if true else equivalence_power(margin, SD, seeds, level)
            line = {"variants": variants, "true": true, "seeds": seeds, "foretold": foretold}
            lines.append({**line, **share(called)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="simulated studies of each kind")
    parser.add_argument("--json", type=Path, help="a file for the same figures")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    for name, simulate in (("null", null_shares), ("power", power_shares), ("level", level_shares)):
        results[name] = simulate(options.repetitions)
        print(f"\n{name}: shares of {options.repetitions} studies")
        for line in results[name]:
            values = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()}
            print("  ".join(f"{key} {value}" for key, value in values.items()))
    if options.json:
        options.json.write_text(json.dumps({"repetitions": options.repetitions, **results}, indent=1))


if __name__ == "__main__":
    main()
