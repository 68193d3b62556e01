"""Published figures beside those of a study: whether they agree, with experts matched, whose numbers are arbitrary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate, interval

# A gate looks like the published one if, experts matched, no rate differs by more.
TOLERANCE = 0.1


@dataclass(frozen=True)
class PublishedScore:
    """A published figure beside ours.

    Arguments:
        variant: name of the variant.
        measure: split and measure, as a column of results.csv.
        published: the figure.
        ours: over seeds; None where the study has none.
        low, high: ends of the interval in which another run lies; None with fewer than two seeds.
    """

    variant: str
    measure: str
    published: float
    ours: Estimate | None
    low: float | None
    high: float | None

    @property
    def lies_inside(self) -> bool | None:
        """Whether the published figure could be another run of ours; None where that cannot be judged."""
        return None if self.low is None or self.high is None else self.low <= self.published <= self.high


@dataclass(frozen=True)
class MatchedRates:
    """The activation rates of a run beside the published ones, with its experts matched.

    Arguments:
        variant, seed: of the run.
        partners: published expert → expert of the run.
        rates: data set → rates of the run in the order of the published experts.
        difference: the largest, over data sets and experts.
    """

    variant: str
    seed: int
    partners: Sequence[int]
    rates: Mapping[str, Sequence[float]]
    difference: float

    @property
    def is_alike(self) -> bool:
        """Whether no rate differs by more than the tolerance."""
        return self.difference <= TOLERANCE + 1e-9


def published_of(study: Study) -> Mapping[str, Mapping[str, Any]]:
    """Variant → what is published of it, for variants that have run."""
    variants = (study.recipe.get("published") or {}).get("variants") or {}
    return {name: spec for name, spec in variants.items() if name in study.variants}


def published_marks(study: Study, measure: str) -> dict[str, float]:
    """Variant → its published figure of a measure such as test_accuracy."""
    scores = {name: (spec.get("scores") or {}).get(measure) for name, spec in published_of(study).items()}
    return {name: float(score) for name, score in scores.items() if score is not None}


def new_run_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The interval in which one more run lies, if runs are normal; None for fewer than two values.

    mean ± t_{(1+level)/2, n−1} · s · √(1 + 1/n),  s² = Σ (v − mean)² / (n − 1)

    Example:
        >>> low, high = new_run_interval([1.0, 2.0, 3.0])
        >>> round(low, 2), round(high, 2)
        (-2.97, 6.97)

    Reference: Hahn, Meeker 1991, Statistical Intervals, section 4.7.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) * (1 + 1 / len(values)) ** 0.5
    return fmean(values) - half, fmean(values) + half


def compare_scores(study: Study) -> list[PublishedScore]:
    """Every published figure beside ours."""
    results, scores = study.table("results"), []
    for name, spec in published_of(study).items():
        for measure, published in (spec.get("scores") or {}).items():
            lines = results[results["variant"] == name]
            column = lines[measure].dropna() if measure in lines else []
            values = [float(value) for value in column]
            ends = new_run_interval(values) or (None, None)
            scores.append(PublishedScore(name, measure, float(published), interval(values) if values else None, *ends))
    return scores


def match_rates(study: Study) -> list[MatchedRates]:
    """The rates of every run of a variant with published ones; of its first gate, on test rows.

    Runs with another number of experts, and data sets that the study does not have, are left out.
    """
    table, matches = study.table("activation", split="test", by="domain"), []
    for name, spec in published_of(study).items():
        published = spec.get("activation") or {}
        lines = table if table.empty else table[(table["variant"] == name) & (table["gate"] == study.first_gate(name))]
        for seed in study.seeds_of(name) if len(lines) else ():
            of_seed = lines[lines["seed"] == seed]
            ours = {
                str(group): each.sort_values("expert")["rate"].to_numpy()
                for group, each in of_seed.groupby("group", sort=False)
            }
            shared = [domain for domain in published if domain in ours]
            match = _match(name, seed, {d: published[d] for d in shared}, {d: ours[d] for d in shared})
            matches += [match] if match else []
    return matches


def published_tables(study: Study) -> dict[str, Frame]:
    """The tables `published`, a line a figure, and `published_activation`, a line a seed, data set and expert."""
    columns = ("variant", "measure", "published", "mean", "low", "high", "seeds", "new_low", "new_high", "inside")
    scores = [
        (
            *(each.variant, each.measure, each.published),
            *((ours.mean, ours.low, ours.high, ours.count) if (ours := each.ours) else (None, None, None, 0)),
            *(each.low, each.high, each.lies_inside),
        )
        for each in compare_scores(study)
    ]
    rates = [
        (match.variant, match.seed, domain, place, match.partners[place], published[domain][place], value)
        for match in match_rates(study)
        for published in [published_of(study)[match.variant]["activation"]]
        for domain, values in match.rates.items()
        for place, value in enumerate(values)
    ]
    heads = ("variant", "seed", "domain", "published_expert", "expert", "published", "rate")
    return {"published": make_frame(scores, columns), "published_activation": make_frame(rates, heads)}


def _match(
    variant: str, seed: int, published: Mapping[str, Sequence[float]], ours: Mapping[str, np.ndarray]
) -> MatchedRates | None:
    if not published or len(next(iter(ours.values()))) != len(next(iter(published.values()))):
        return None
    wanted_DE = np.array([published[domain] for domain in published], dtype=float)
    rates_DE = np.stack([ours[domain] for domain in published])
    cost_EE = np.abs(wanted_DE[:, :, None] - rates_DE[:, None, :]).sum(0)
    _, partners = linear_sum_assignment(cost_EE)
    matched = {domain: [float(rate) for rate in ours[domain][partners]] for domain in published}
    difference = float(np.abs(wanted_DE - rates_DE[:, partners]).max())
    return MatchedRates(variant, seed, [int(partner) for partner in partners], matched, difference)
