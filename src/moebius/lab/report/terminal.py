"""The table of results for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from moebius.lab.report.numbers import NONE, bracket, capitalise, count, duration, rate
from moebius.lab.report.source import measure_words
from moebius.lab.report.verdicts import verdict_points
from moebius.lab.statistics.family import Family
from moebius.lab.statistics.interval import Estimate, interval


def build_results_table(
    runs: Sequence[Mapping[str, Any]], title: str | None = None, score: str = "accuracy", chosen: str | None = None
) -> Table:
    """One line per variant: mean and 95 % interval of test and train score over seeds, parameters, seconds.

    Arguments:
        runs: the runs of results.json, in the order in which the variants appear.
        title: line above the table; None for the score, where it is no accuracy.
        score: name of the task's score.
        chosen: the variant that held-out rows choose, whose test score is bold; None for none.

    Returns:
        A rich table. `describe_family` gives what its differences show.

    Example:
        >>> table = build_results_table([{"variant": "single", "seed": 0, "accuracy": {"train": 0.7, "test": 0.6}}])
        >>> [list(column.cells) for column in table.columns[:3]]
        [['single'], ['.600'], ['.700']]

    Reference: ours; intervals are Student's t over seeds.
    """
    runs_by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        runs_by_variant.setdefault(run["variant"], []).append(run)
    several = any(len(variant_runs) > 1 for variant_runs in runs_by_variant.values())
    scores = {variant: _estimates(variant_runs, score) for variant, variant_runs in runs_by_variant.items()}
    if title is None and score != "accuracy":
        title = capitalise(measure_words(score))
    table = Table(title=title, title_justify="left")
    table.add_column("variant", overflow="fold")
    for head in ["test", "95 % interval"] if several else ["test"]:
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("train", "seeds", "parameters", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for variant, variant_runs in runs_by_variant.items():
        train, test = scores[variant]
        test_mean = rate(test.mean) if test else NONE
        cells = [f"[bold]{test_mean}[/]" if test and variant == chosen else test_mean]
        cells += [bracket(test).replace("[", r"\[") if test else ""] if several else []
        cells += [rate(train.mean) if train else NONE, str(len(variant_runs)), count(variant_runs[0].get("parameters"))]
        seconds = [run["seconds"] for run in variant_runs if run.get("seconds") is not None]
        table.add_row(variant.replace("[", r"\["), *cells, duration(interval(seconds).mean if seconds else None))
    return table


def describe_family(family: Family | None) -> list[str]:
    """What the comparisons of a study show, in lines to print below the table; none without comparisons.

    Arguments:
        family: of `moebius.lab.report.comparisons.compare_variants`.

    Example:
        >>> from moebius.lab.statistics.family import compare_with_baseline
        >>> scores = {"a": {0: 0.60, 1: 0.62, 2: 0.61}, "b": {0: 0.70, 1: 0.71, 2: 0.72}}
        >>> describe_family(compare_with_baseline(scores, "a"))
        ['Better than a: b +.100 [+.075, +.125], p .003.']

    Reference: ours.
    """
    if family is None:
        return []
    lines = [f"{lead} {text}" for lead, text in verdict_points(family)]
    if family.chosen is not None:
        lines.append(f"Chosen on held-out rows: {family.chosen}.")
    if family.over == "rows":
        lines.append("One seed: paired over test rows, of the models as trained; more seeds may change the order.")
    return lines


def describe_stages(stages: Sequence[Mapping[str, Any]], score: str = "accuracy") -> str | None:
    """The stages trained before the variants, in one line to print above the table; None without stages.

    Arguments:
        stages: `stages` of results.json, one entry per stage and seed.
        score: name of the task's score.

    Example:
        >>> describe_stages([{"stage": "a", "seed": 0, "accuracy": {"test": 0.93}}, {"stage": "b", "seed": 0}])
        'stages: 2 finished, own-test accuracy .930'
        >>> describe_stages([]) is None
        True

    Reference: ours.
    """
    if not stages:
        return None
    scores = sorted(float(value) for stage in stages if (value := (stage.get(score) or {}).get("test")) is not None)
    ends = list(dict.fromkeys(rate(end) for end in (scores[0], scores[-1]))) if scores else []
    seeds = len({stage["seed"] for stage in stages})
    with_seeds = f" with {seeds} seeds" if seeds > 1 else ""
    with_score = f", own-test {measure_words(score)} {' – '.join(ends)}" if ends else ""
    return f"stages: {len({stage['stage'] for stage in stages})} finished{with_seeds}{with_score}"


def _estimates(runs: Sequence[Mapping[str, Any]], score: str) -> tuple[Estimate | None, Estimate | None]:
    """Training and test score over seeds; None where no run has one."""
    estimates = []
    for split in ("train", "test"):
        values = [(run.get(score) or {}).get(split) for run in runs]
        numbers = [float(value) for value in values if value is not None]
        estimates.append(interval(numbers) if numbers else None)
    return estimates[0], estimates[1]
