"""The results table."""

from collections.abc import Mapping

from moebius.lab.report.blocks import Block, Details, Panels, Points, Section, Table, Text
from moebius.lab.report.charts.dots import dot_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.numbers import (
    NONE,
    bracket,
    capitalise,
    count,
    duration,
    p_text,
    rate,
    signed,
    signed_bracket,
    with_interval,
)
from moebius.lab.report.published import published_marks
from moebius.lab.report.queries import estimate_of, measure_by_seed, ranking
from moebius.lab.report.sections.answer import DRAWN
from moebius.lab.report.source import Study, measure_words
from moebius.lab.report.verdicts import explain, sources_of_variance, verdict_points
from moebius.lab.statistics.family import Family
from moebius.lab.statistics.interval import interval
from moebius.lab.statistics.row_interval import row_interval

ORDER = 15


def section(study: Study) -> Section | None:
    """Score of every variant with its interval, the differences from the baseline, and the task's further metrics."""
    ranked = ranking(study)
    if not ranked:
        return None
    several, family = len(study.seeds) > 1, study.family
    names = [name for name, _ in ranked]
    names += [name for name in study.variants if name not in names]
    with_held_out = any(measure_by_seed(study, name, study.score, "validation") for name in names)
    over = "95 % interval" if several else "95 % interval, rows"
    columns = ["variant", "test", *([over] if several or study.row_scores else [])]
    columns += ["held out"] if with_held_out else []
    columns += ["train", *(["test, every seed"] if several else []), "parameters", "time per run", "rows/s"]
    rows = [_cells(study, variant, several, with_held_out) for variant in names]
    for name, row in zip(names, rows, strict=True):
        row[0] += " (baseline)" if family is not None and name == family.baseline else ""
    score = capitalise(study.measure)
    caption = f"{score} at the reported epoch, the best mean on test first; train is cumulative over that epoch, before"
    chosen = family.chosen if family is not None else None
    marked = [] if chosen is None else [names.index(chosen)]
    blocks: list[Block] = [Table(f"{caption} each update", columns, rows, marked=marked), Text(_note(study, chosen))]
    if family is not None:
        differences: list[Block] = [difference_table(family, f"Test {study.measure}"), Text(explain(family))]
        many = len(family.contrasts) > DRAWN
        blocks.append(Points(verdict_points(family)))
        blocks += [Details(f"Each of the {len(family.contrasts)} differences", differences)] if many else differences
    metrics = _metric_table(study)
    blocks += [metrics] if metrics else []
    # The figure of the first screen has the same variants, and no published scores.
    published = published_marks(study, f"test_{study.score}")
    if published or len(ranked) > DRAWN:
        figure = Panels([_score_figure(study, [name for name, _ in ranked], published)])
        blocks.append(figure if published else Details(f"All {len(ranked)} variants in a figure", [figure]))
    return Section("results", "Results", blocks)


def difference_table(family: Family, subject: str) -> Table:
    """The comparisons of a family, a line for each.

    Arguments:
        family: the comparisons.
        subject: of what the differences are, such as "Test accuracy".
    """
    with_level = family.margin is not None
    columns = ["variant", f"minus {family.baseline}", "95 % interval", "p"]
    columns += ["p (Holm)"] if family.tested > 1 else []
    columns += [f"p level within {rate(family.margin)}{' (Holm)' * (family.tested > 1)}"] if with_level else []
    rows = []
    for contrast in family.contrasts:
        difference = contrast.difference
        cells = [NONE] * 3
        if difference is not None:
            cells = [signed(difference.mean), signed_bracket(difference) or NONE, p_text(difference.p)]
        cells += [p_text(contrast.p_holm)] if family.tested > 1 else []
        cells += [p_text(contrast.p_level_holm)] if with_level else []
        rows.append([contrast.name, *cells, contrast.verdict])
    noun = "the same test rows" if family.over == "rows" else "seeds"
    return Table(f"{subject} minus that of {family.baseline}, paired by {noun}", [*columns, "verdict"], rows)


def _cells(study: Study, variant: str, several: bool, with_held_out: bool) -> list[str]:
    test, held_out, train = (
        measure_by_seed(study, variant, study.score, split) for split in ("test", "validation", "train")
    )
    score = interval(list(test.values())) if test else None
    cells = [variant, rate(score.mean) if score else NONE]
    if several:
        cells.append((bracket(score) if score else "") or NONE)
    elif study.row_scores:
        rows = study.row_scores.get(variant)
        cells.append(bracket(row_interval(rows)) if rows is not None else NONE)
    cells += [rate(interval(list(held_out.values())).mean) if held_out else NONE] if with_held_out else []
    cells.append(rate(interval(list(train.values())).mean) if train else NONE)
    cells += [" ".join(rate(value) for value in test.values())] if several else []
    runs = [run for run in study.runs if run["variant"] == variant]
    return [
        *cells,
        count(runs[0].get("parameters")),
        duration(_mean(runs, "seconds")),
        count(_mean(runs, "images_per_second")),
    ]


def _metric_table(study: Study) -> Table | None:
    """The mean of every further metric on test rows, by variant; None for a task without any."""
    values: dict[str, dict[str, list[float]]] = {variant: {} for variant in study.variants}
    for run in study.runs:
        for name, value in ((run.get("metrics") or {}).get("test") or {}).items():
            if value is not None:
                values[run["variant"]].setdefault(name, []).append(float(value))
    names = list(dict.fromkeys(name for by_name in values.values() for name in by_name))
    if not names:
        return None
    rows = [
        [variant, *(with_interval(interval(by_name[name])) if name in by_name else NONE for name in names)]
        for variant, by_name in values.items()
    ]
    with_intervals = " with 95 % intervals over seeds" if len(study.seeds) > 1 else ""
    columns = ["variant", *map(measure_words, names)]
    return Table(f"Further metrics of the test rows{with_intervals}", columns, rows)


def _mean(runs: list, key: str) -> float | None:
    values = [float(run[key]) for run in runs if run.get(key) is not None]
    return sum(values) / len(values) if values else None


def _note(study: Study, chosen: str | None) -> str:
    rows = max((len(scores) for scores in study.row_scores.values()), default=None)
    marked = ""
    if chosen is not None:
        marked = f"The marked line, {chosen}, has the best mean on held-out rows; its test score had no part in that. "
    elif len(study.variants) > 1:
        marked = "No rows are held out that could choose a variant without the test rows. "
    if len(study.seeds) == 1 and rows is None:
        return f"{marked}One seed gives no interval."
    return marked + sources_of_variance(rows if len(study.seeds) == 1 else None)


def _score_figure(study: Study, names: list[str], published: Mapping[str, float]) -> Figure:
    scores = {variant: measure_by_seed(study, variant, study.score, "test") for variant in names}
    baseline = study.baseline if study.family is None else study.family.baseline
    subject = f"Test {study.measure}"
    told = "; ".join(f"{name} {with_interval(estimate_of(study, name))}" for name in names)
    caption = f"{subject}: diamond = mean, circles = seeds, bar = 95 % interval (cut where it leaves the picture)."
    if len(study.seeds) == 1:
        caption = f"{subject}{', bar = 95 % interval over test rows' if study.row_scores else ''}."
    caption += f" Dashed: {baseline}, the baseline." if len(names) > 1 else ""
    caption += " Triangle: published." if published else ""
    chart = dot_chart(study, scores, f"test {study.measure}", published, names, baseline)
    return Figure("results", chart, caption, f"{subject} by variant: {told}.")
