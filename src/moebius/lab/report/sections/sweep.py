"""The points of a sweep: their scores on held-out rows, and the choice."""

from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.report.blocks import Block, Details, Heading, Panels, Points, Section, Table, Text
from moebius.lab.report.charts.response import is_numeric, key_chart, map_chart
from moebius.lab.report.figures import Figure, slug
from moebius.lab.report.numbers import NONE, rate, signed_with_interval, with_interval
from moebius.lab.report.points import SweptPoint, value_words
from moebius.lab.report.queries import measure_by_seed
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 24
# The table has the best points; the others are behind a line that the reader opens.
LISTED = 20
# With more values of a second key, lines can no longer be told apart.
MOST_LINES = 6


def section(study: Study) -> Section | None:
    """For each swept variant the response to the keys, and the points with the chosen one marked."""
    if not study.points:
        return None
    count = len(study.seeds)
    repeats = f"mean over {count} seeds" if count > 1 else "one seed"
    blocks: list[Block] = [
        Text(
            f"The held-out rows choose, by their {study.measure} ({repeats}); the test rows have no part in it. All "
            "other sections show the chosen point of a swept variant under the variant's name. The held-out score of "
            "the best of many points is a little too good, because it was chosen for it; its test score is not."
        )
    ]
    taken: set[str] = set()
    variants = list(dict.fromkeys(point.variant for point in study.points))
    for variant in variants:
        points = [point for point in study.points if point.variant == variant]
        blocks += [Heading(variant)] if len(variants) > 1 else []
        blocks += _variant_blocks(study, variant, points, slug(f"sweep {variant}", taken))
    return Section("sweep", f"Sweep: {study.measure} on held-out rows", blocks)


def _variant_blocks(study: Study, variant: str, points: Sequence[SweptPoint], name: str) -> list[Block]:
    chosen = study.chosen.get(variant)
    drawn = [point for point in points if point.estimate is not None and not point.diverged]
    ranked = sorted(drawn, key=lambda point: -(point.estimate.mean if point.estimate else 0))
    ranked += [point for point in points if point not in drawn]
    blocks: list[Block] = [Points(_findings(study, points, chosen))] if chosen else []
    blocks += [Panels(_figures(study, drawn, chosen, name, variant))] if drawn else []
    blocks.append(_table(study, ranked[:LISTED], chosen, f"{variant}: points, the best first"))
    if len(ranked) > LISTED:
        others = _table(study, ranked[LISTED:], chosen, f"{variant}: the other points")
        blocks.append(Details(f"{len(ranked) - LISTED} other points", [others]))
    return blocks


def _findings(study: Study, points: Sequence[SweptPoint], chosen: SweptPoint) -> list[tuple[str, str]]:
    assert chosen.estimate is not None
    values = ", ".join(f"{key} = {value_words(value)}" for key, value in chosen.values.items())
    test = measure_by_seed(study, chosen.variant, study.score, "test")
    tested = f"; on test {with_interval(interval(list(test.values())))}" if test else ""
    findings = [(f"Chosen of {len(points)}:", f"{values}; {with_interval(chosen.estimate)} on held-out rows{tested}.")]
    rivals = [point for point in points if point is not chosen and point.scores and not point.diverged]
    gaps = {point.name: _gap(point, chosen) for point in rivals}
    if len(study.seeds) > 1 and rivals:
        level = [gap for gap in gaps.values() if gap.high is not None and gap.high >= 0]
        rule = "the paired 95 % interval of the difference, uncorrected, holds 0"
        findings.append(("Not told apart from it:", f"{len(level)} of the other {len(rivals)} ({rule})."))
    for key in chosen.values:
        tried = [point.values[key] for point in points]
        if is_numeric(tried) and chosen.values[key] in (min(tried), max(tried)):
            end = "largest" if chosen.values[key] == max(tried) else "smallest"
            text = f"the chosen {key} is the {end} that was tried, so better ones may lie beyond it."
            findings.append(("At the edge:", text))
    return findings


def _gap(point: SweptPoint, chosen: SweptPoint) -> Any:
    shared = [seed for seed in point.scores if seed in chosen.scores]
    return interval([point.scores[seed] - chosen.scores[seed] for seed in shared])


def _figures(
    study: Study, points: Sequence[SweptPoint], chosen: SweptPoint | None, name: str, variant: str
) -> list[Figure]:
    sweep: Mapping[str, Any] = study.recipe.get("sweep") or {}
    keys, title = list(points[0].values), f"held-out {study.measure}"
    logs = {key: (_spec(sweep, key).get("scale") == "log") for key in keys}
    is_grid = sweep.get("method", "grid") == "grid"
    best = f"; chosen: {rate(chosen.estimate.mean)}" if chosen and chosen.estimate else ""
    bars = ", with 95 % intervals over seeds (cut where they leave the picture)" if len(study.seeds) > 1 else ""
    figures = []
    if len(keys) == 2:
        first, second = keys
        chart = map_chart(points, (first, second), chosen, title, (logs[first], logs[second]), is_grid)
        caption = f"{variant}: {title} against {first} and {second}; orange: chosen."
        figures.append(Figure(f"{name}-map", chart, caption, f"{caption.rstrip('.')}{best}."))
    for place, key in enumerate(keys):
        others = [each for each in keys if each != key]
        counts = {each: len({value_words(point.values[each]) for point in points}) for each in others}
        beside = others[0] if len(others) == 1 and is_grid and counts[others[0]] <= MOST_LINES else None
        chart = key_chart(points, key, chosen, title, logs[key], beside)
        means = [point.estimate.mean for point in points if point.estimate]
        caption = f"{variant}: {title} against {key}{bars}; orange: chosen."
        text = f"{caption.rstrip('.')}; from {rate(min(means))} to {rate(max(means))}{best}."
        figures.append(Figure(f"{name}-{place}", chart, caption, text))
    return figures


def _spec(sweep: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    tried = (sweep.get("keys") or {}).get(key)
    return tried if isinstance(tried, Mapping) else {}


def _table(study: Study, points: Sequence[SweptPoint], chosen: SweptPoint | None, caption: str) -> Table:
    keys, several = list(points[0].values), len(study.seeds) > 1
    columns = [*keys, "held-out", *(["minus chosen, paired"] if several else []), "test"]
    rows = []
    for point in points:
        cells = [value_words(point.values[key]) for key in keys]
        if point.diverged or point.estimate is None:
            total = point.diverged + len(point.scores)
            where = f" in {point.diverged} of {total} seeds" if several else ""
            rows.append([*cells, f"diverged{where}", *([NONE] if several else []), ""])
            continue
        gap = "" if point is chosen or chosen is None else signed_with_interval(_gap(point, chosen))
        test = measure_by_seed(study, point.variant, study.score, "test") if point is chosen else {}
        tested = with_interval(interval(list(test.values()))) if test else ""
        rows.append([*cells, with_interval(point.estimate), *([gap or NONE] if several else []), tested])
    marked = [place for place, point in enumerate(points) if point is chosen]
    with_intervals = " with 95 % intervals over seeds" if several else ""
    return Table(f"{caption}: {study.measure}{with_intervals}", columns, rows, len(keys), marked)
