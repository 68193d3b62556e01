"""Which variants are shown at length, where a page of all of them would be too long to read."""

from collections.abc import Collection, Sequence

from moebius.lab.report.numbers import listing, names_of
from moebius.lab.report.queries import ranking
from moebius.lab.report.source import Study

MOST = 3
# So many are drawn at all, most of them behind a line to open; all are in the tables.
DRAWN = 12


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


def undrawn_text(among: Collection[str], drawn: Collection[str], place: str) -> str:
    """A sentence about variants that are in a table alone; an empty text where there are none.

    Arguments:
        among: variants that have something to show.
        drawn: those that are drawn.
        place: the table.
    """
    rest = [variant for variant in among if variant not in drawn]
    return f" {place} also has {names_of(rest)}." if rest else ""


def others_text(among: Collection[str], shown: Sequence[str], place: str) -> str:
    """A sentence about variants that are not shown; an empty text where all are.

    Arguments:
        among: variants that have something to show.
        shown: those that are.
        place: where the others are.
    """
    if len(shown) == len(among):
        return ""
    return f" Of {len(among)} variants {listing(list(shown))} are shown; the others are in {place}."
