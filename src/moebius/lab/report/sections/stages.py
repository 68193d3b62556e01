"""The stages that were trained before the variants."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.blocks import Block, Panels, Section, Table, Text
from moebius.lab.report.charts.parts import score_limits
from moebius.lab.report.expert_names import class_list
from moebius.lab.report.figures import COLOURS, INK, WIDTH, Figure
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.numbers import NONE, count, duration, listing, rate, with_interval
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 27
# Up to MANY stages have a chart each, GAP pixels apart; more stages share one chart.
MANY = 12
GAP = 16


def section(study: Study) -> Section | None:
    """A line for every stage with its classes and its score on them, and its score by epoch."""
    if not study.stages:
        return None
    names = list(dict.fromkeys(stage["stage"] for stage in study.stages if "fold" not in stage))
    runs = {name: [stage for stage in study.stages if stage["stage"] == name] for name in names}
    seeds = max(map(len, runs.values()))
    columns = ["stage", "classes", "train rows", "epoch kept", "validation", "test", "time"]
    text = (
        "Trained before the variants, which take them as they are. Scores are on a stage's own rows, those of its "
        "classes or data sets, so stages of unlike rows are not to be compared."
    )
    if copies := len({stage["stage"] for stage in study.stages} - set(names)):
        text += (
            f" {copies} more, copies of these that were each trained without a fold of the rows, gave the outputs that "
            "cross-fitted variants were trained on."
        )
    over = f"means over {seeds} seeds with 95 % intervals" if seeds > 1 else "one seed"
    rows = [[name, *_stage_cells(study, runs[name])] for name in names]
    blocks: list[Block] = [Text(text), Table(f"Stages, {over}", columns, rows, heads=2)]
    figure = _epoch_figure(study, names)
    return Section("stages", "What was trained first", [*blocks, *([Panels([figure])] if figure else [])])


def _stage_cells(study: Study, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    first = runs[0]
    return [
        _class_cell(first, study.classes),
        count((first.get("rows") or {}).get("train")),
        f"{_range([run.get('epoch') for run in runs])} of {_range([len(run.get('epochs') or ()) for run in runs])}",
        *(_score_cell(study, runs, split) for split in ("validation", "test")),
        _mean_time(runs),
    ]


def _class_cell(stage: Mapping[str, Any], among: Sequence[str]) -> str:
    stage_classes = [str(name) for name in stage.get("classes") or ()]
    groups = [[str(name) for name in group] for group in stage.get("groups") or ()]
    if not groups:
        return class_list(stage_classes, among or stage_classes) if stage_classes else NONE
    shown = [class_list(group, stage_classes) for group in groups]
    return f"{' / '.join(shown[:-1])} against the others" if len(shown) == 2 else " / ".join(shown)


def _range(values: Sequence[int | None]) -> str:
    """Smallest and largest value over seeds, or the one value that all have."""
    numbers = sorted(value for value in values if value is not None)
    if not numbers:
        return NONE
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]}–{numbers[-1]}"


def _score_cell(study: Study, runs: Sequence[Mapping[str, Any]], split: str) -> str:
    values = [(run.get(study.score) or {}).get(split) for run in runs]
    scores = [float(value) for value in values if value is not None]
    return with_interval(interval(scores)) if scores else NONE


def _mean_time(runs: Sequence[Mapping[str, Any]]) -> str:
    seconds = [float(run["seconds"]) for run in runs if run.get("seconds") is not None]
    return duration(sum(seconds) / len(seconds) if seconds else None)


def _epoch_figure(study: Study, names: Sequence[str]) -> Figure | None:
    frame = study.table("stage_epochs", measure=study.score)
    split = next((split for split in ("validation", "test") if (frame["split"] == split).any()), None)
    if split is None:
        return None
    frame = frame[(frame["split"] == split) & frame["stage"].isin(names)]
    kept = make_frame(
        [(run["stage"], run["seed"], run.get("epoch")) for run in study.stages], ["stage", "seed", "epoch"]
    )
    kept = kept.merge(frame, on=["stage", "seed", "epoch"])
    shown = [name for name in names if (frame["stage"] == name).any()]
    seeds = kept["seed"].nunique()
    kept_means = "; ".join(
        f"{name} {rate(values.mean())}" for name, values in kept.groupby("stage", sort=False)["value"]
    )
    lines = f"; a thin line for each of {seeds} seeds" if seeds > 1 else ""
    chart = _small_multiples(study, frame, kept, shown) if len(shown) <= MANY else _shared_chart(study, frame)
    dots = ", the dot is the epoch kept" if len(shown) <= MANY else ""
    caption = f"{split.capitalize()} {study.measure} by epoch of every stage, on its own rows{lines}{dots}."
    return Figure("stages", chart, caption, f"{caption} At the epoch kept: {kept_means or listing(shown)}.")


def _scales(study: Study, frame: Frame) -> tuple[alt.Scale, alt.Scale]:
    low, high, last = float(frame["value"].min()), float(frame["value"].max()), int(frame["epoch"].max())
    pad = max((high - low) * 0.06, 0.004)
    upward = alt.Scale(domain=list(score_limits(study, (low, high), pad)), nice=False, zero=False)
    return alt.Scale(domain=[min(1, int(frame["epoch"].min())), max(2, last)], nice=False), upward


def _small_multiples(study: Study, frame: Frame, kept: Frame, names: Sequence[str]) -> alt.TopLevelMixin:
    along, upward = _scales(study, frame)
    columns = 2 if len(names) in (2, 4) else 3 if len(names) in (3, 5, 6, 9) else min(4, len(names))
    width = (WIDTH - GAP * (columns - 1)) / columns
    last = int(frame["epoch"].max())
    ticks = sorted({1, (1 + last) // 2, last})
    x = alt.X("epoch:Q", scale=along, axis=alt.Axis(grid=False, format="d", values=ticks), title=None)
    y = alt.Y("value:Q", scale=upward, axis=alt.Axis(tickCount=3, format=".1f"), title=None)
    means = kept.groupby("stage", sort=False)["value"].mean()
    cells = []
    for place, name in enumerate(names):
        curves, dots = frame[frame["stage"] == name], kept[kept["stage"] == name]
        x_axis = x if place + columns >= len(names) else alt.X("epoch:Q", scale=along, title=None, axis=_bare_axis())
        y_axis = y if place % columns == 0 else alt.Y("value:Q", scale=upward, title=None, axis=_bare_axis(grid=True))
        layers: list[Any] = [
            alt.Chart(curves)
            .mark_line(strokeWidth=1.2, opacity=0.85, color=COLOURS[0])
            .encode(x_axis, y_axis, detail="seed:N")
        ]
        if len(dots):
            layers.append(
                alt.Chart(dots).mark_point(size=26, filled=True, opacity=1, color=COLOURS[1]).encode(x_axis, y_axis)
            )
            label = make_frame([(last, rate(float(means[name])))], ["epoch", "text"])
            text = alt.Chart(label).mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=INK)
            layers.append(text.encode(x_axis, y=alt.value(72), text="text:N"))
        # A text mark and not the chart's title, which the labels of the axis would move: titles in a row stay level.
        title = alt.Chart(make_frame([(name,)], ["text"])).mark_text(
            align="left", baseline="bottom", fontSize=11, fontWeight="bold", color=INK, limit=width + 8
        )
        layers.append(title.encode(x=alt.value(0), y=alt.value(-5), text="text:N"))
        cells.append(alt.layer(*layers).properties(width=width, height=72))
    return alt.concat(*cells, columns=columns, spacing={"row": 28, "column": GAP}, bounds="flush")


def _bare_axis(grid: bool = False) -> alt.Axis:
    return alt.Axis(labels=False, ticks=False, grid=grid, tickCount=3)


def _shared_chart(study: Study, frame: Frame) -> alt.TopLevelMixin:
    along, upward = _scales(study, frame)
    x = alt.X("epoch:Q", scale=along, axis=alt.Axis(grid=False, format="d", tickMinStep=1))
    y = alt.Y("value:Q", scale=upward, title=study.measure)
    lines = alt.Chart(frame.assign(line=frame["stage"] + frame["seed"].astype(str))).mark_line(
        strokeWidth=1, opacity=0.4
    )
    return lines.encode(x, y, detail="line:N").properties(width=WIDTH, height=230)
