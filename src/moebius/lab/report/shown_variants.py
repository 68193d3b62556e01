"""Which variants are shown at length, where a page of all of them would be too long to read."""

from collections.abc import Collection

from moebius.lab.report.queries import ranking
from moebius.lab.report.source import Study

MOST = 3


def shown_variants(study: Study, among: Collection[str], most: int = MOST) -> list[str]:
    """The best variants by test score and the baseline, the best first.

    Arguments:
        study: with scores.
        among: variants that have something to show.
        most: how many are shown.
    """
    ranked = [variant for variant, _ in ranking(study) if variant in among]
    ranked += [variant for variant in study.variants if variant in among and variant not in ranked]
    first = ranked[:1] + [variant for variant in ranked[1:] if variant == study.baseline]
    chosen = list(dict.fromkeys([*first, *ranked]))[:most]
    return [variant for variant in ranked if variant in chosen]


def others_text(study: Study, among: Collection[str], shown: Collection[str]) -> str:
    """A sentence about those that are not shown; an empty text where all are."""
    count = sum(variant in among and variant not in shown for variant in study.variants)
    if not count:
        return ""
    return f" Shown are the best by test {study.measure} and the baseline; {count} more are in the files."
