"""The results table in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from moebius.lab.report.numbers import NONE, bracket, count, duration, rate
from moebius.lab.statistics.interval import Estimate, interval


def results_table(runs: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """One line per variant: mean and 95 % interval of test and train accuracy over seeds, parameters, seconds.

    Arguments:
        runs: the runs of results.json; the order of variants is theirs.
        title: above the table.

    Returns:
        A rich table; the best mean test accuracy is bold, which says nothing about how sure that is.

    Example:
        >>> table = results_table([{"variant": "single", "seed": 0, "accuracy": {"train": 0.7, "test": 0.6}}])
        >>> [list(column.cells) for column in table.columns[:3]]
        [['single'], ['[bold].600[/]'], ['.700']]

    Reference: ours; intervals are Student's t over seeds.
    """
    variants: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        variants.setdefault(run["variant"], []).append(run)
    several = any(len(found) > 1 for found in variants.values())
    scores = {name: _estimates(found) for name, found in variants.items()}
    best = max((test.mean for _, test in scores.values() if test), default=None)
    table = Table(title=title, title_justify="left")
    table.add_column("variant")
    for head in ["test", "95 % interval"] if several else ["test"]:
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("train", "seeds", "parameters", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, found in variants.items():
        train, test = scores[name]
        shown = rate(test.mean) if test else NONE
        cells = [f"[bold]{shown}[/]" if test and test.mean == best else shown]
        cells += [bracket(test).replace("[", r"\[") if test else ""] if several else []
        cells += [rate(train.mean) if train else NONE, str(len(found)), count(found[0].get("parameters"))]
        seconds = [run["seconds"] for run in found if run.get("seconds") is not None]
        table.add_row(name.replace("[", r"\["), *cells, duration(interval(seconds).mean if seconds else None))
    return table


def stages_line(stages: Sequence[Mapping[str, Any]]) -> str | None:
    """What was trained before the variants, in one line for above the table; None where nothing was.

    Arguments:
        stages: those of results.json, one entry per stage and seed.

    Example:
        >>> stages_line([{"stage": "a", "seed": 0, "accuracy": {"test": 0.93}}, {"stage": "b", "seed": 0}])
        'stages: 2 finished, own-test accuracy .930'
        >>> stages_line([]) is None
        True

    Reference: ours.
    """
    if not stages:
        return None
    scores = [(stage.get("accuracy") or {}).get("test") for stage in stages]
    given = sorted(float(score) for score in scores if score is not None)
    ends = list(dict.fromkeys(rate(end) for end in (given[0], given[-1]))) if given else []
    seeds = len({stage["seed"] for stage in stages})
    repeated = f" with {seeds} seeds" if seeds > 1 else ""
    measured = f", own-test accuracy {' – '.join(ends)}" if ends else ""
    return f"stages: {len({stage['stage'] for stage in stages})} finished{repeated}{measured}"


def _estimates(runs: Sequence[Mapping[str, Any]]) -> tuple[Estimate | None, Estimate | None]:
    found = []
    for split in ("train", "test"):
        values = [(run.get("accuracy") or {}).get(split) for run in runs]
        given = [float(value) for value in values if value is not None]
        found.append(interval(given) if given else None)
    return found[0], found[1]
