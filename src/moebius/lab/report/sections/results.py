"""The results table."""

from moebius.lab.report.blocks import Block, Panels, Section, Table, Text
from moebius.lab.report.charts.dots import dot_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.numbers import NONE, bracket, capitalise, count, duration, rate, signed, with_interval
from moebius.lab.report.published import published_marks
from moebius.lab.report.queries import measure_by_seed, ranking
from moebius.lab.report.source import Study, measure_words
from moebius.lab.statistics.interval import interval

ORDER = 20


def section(study: Study) -> Section | None:
    """Score of every variant with its interval, the value of every seed, and the task's further metrics."""
    ranked = ranking(study)
    if not ranked:
        return None
    best = ranked[0][0]
    several = len(study.seeds) > 1
    columns = ["variant", "test", *(["95 % interval"] if several else []), "train"]
    columns += [f"minus {best}, paired"] if several and len(ranked) > 1 else []
    columns += ["test, every seed"] if several else []
    columns += ["parameters", "time per run", "rows/s"]
    rows = [_cells(study, variant, best, several, len(ranked) > 1) for variant in study.variants]
    score = capitalise(study.measure)
    caption = f"{score} at the reported epoch; train is cumulative over that epoch, before each update"
    blocks: list[Block] = [
        Table(caption, columns, rows, marked=[study.variants.index(best)]),
        Text(_note(study, best, several, len(ranked) > 1)),
        Panels([_score_figure(study)]),
    ]
    metrics = _metric_table(study)
    blocks[2:2] = [metrics] if metrics else []
    return Section("results", "Results", blocks)


def _cells(study: Study, variant: str, best: str, several: bool, compared: bool) -> list[str]:
    test, train = (
        measure_by_seed(study, variant, study.score, "test"),
        measure_by_seed(study, variant, study.score, "train"),
    )
    score = interval(list(test.values())) if test else None
    cells = [variant, rate(score.mean) if score else NONE]
    cells += [(bracket(score) if score else "") or NONE] if several else []
    cells.append(rate(interval(list(train.values())).mean) if train else NONE)
    if several and compared:
        best_scores = measure_by_seed(study, best, study.score, "test")
        differences = [test[seed] - best_scores[seed] for seed in test if seed in best_scores]
        gap = interval(differences) if differences and variant != best else None
        cells.append(f"{signed(gap.mean)} {bracket(gap)}".rstrip() if gap else NONE)
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


def _note(study: Study, best: str, several: bool, compared: bool) -> str:
    if not several:
        alone = f"The marked line, {best}, has the best test {study.measure}. One seed gives no interval."
        return alone if compared else ""
    marked = (
        f"The marked line, {best}, has the best mean on test; whether that is more than chance, the intervals say. "
    )
    paired = f"“Minus {best}” is the mean difference over the seeds both ran with, and its interval. "
    return (marked + paired if compared else "") + "Intervals are Student's t over seeds, at 95 %."


def _score_figure(study: Study) -> Figure:
    scores = {variant: measure_by_seed(study, variant, study.score, "test") for variant in study.variants}
    estimates = "; ".join(f"{variant} {with_interval(score)}" for variant, score in ranking(study))
    subject = f"Test {study.measure}"
    caption = f"{subject}: diamond = mean, circles = seeds, bar = 95 % interval (cut where it leaves the picture)."
    if len(study.seeds) == 1:
        caption = f"{subject}."
    published = published_marks(study, f"test_{study.score}")
    caption += " Triangle: published." if published else ""
    return Figure(
        "results",
        dot_chart(study, scores, f"test {study.measure}", published),
        caption,
        f"{subject} by variant: {estimates}.",
    )
