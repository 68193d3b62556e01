"""What several sections ask of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.diagnostics.interval import Estimate, interval
from moebius.lab.report.figures import colours, slug
from moebius.lab.report.frames import Frame
from moebius.lab.report.source import Study

# Up to here experts have a colour, a column or a histogram of their own; beyond, figures become heat maps.
FEW = 4


SHADES = ["#f7fbff", "#9ecae1", "#3182bd", "#08306b"]
ORANGES = ["#fdae6b", "#e6550d", "#7f2704"]


def blues(top: float) -> alt.Scale:
    """White to dark blue, from 0 to `top`: 1 where gates with few experts are compared, else the largest there is."""
    return alt.Scale(domain=[0, top], range=SHADES, clamp=True)


def weight_shades(low: float, top: float) -> alt.Scale:
    """`blues` up to `top`; for weights that may be negative, orange to blue with white at 0."""
    if low > -0.0005:
        return blues(top)
    end = max(-low, top)
    return alt.Scale(domain=[-end, end], range=[*reversed(ORANGES), *SHADES], clamp=True, interpolate="rgb")


def curve_lines(frame: Frame) -> tuple[Frame, Frame]:
    """The lines of an epoch table that make curves, and those of variants that were never trained (epoch 0 alone)."""
    trained = frame.groupby("variant")["epoch"].transform("max") > 0
    return frame[trained], frame[~trained]


def epoch_axis(frame: Frame, most: int) -> alt.X:
    """Epochs from left to right, a tick for each where there are at most `most`."""
    epochs = sorted({int(epoch) for epoch in frame["epoch"]})
    ticks = {"values": epochs} if len(epochs) <= most else {"tickCount": most, "tickMinStep": 1}
    around = [epochs[0], epochs[-1]] if len(epochs) > 1 else [epochs[0] - 1, epochs[0] + 1]
    axis = alt.Axis(format="d", grid=False, **ticks)  # type: ignore[arg-type]
    return alt.X("epoch:Q", axis=axis, scale=alt.Scale(domain=around, nice=False))


def measure_by_seed(study: Study, variant: str, measure: str, split: str) -> dict[int, float]:
    """A measure of results.json by seed."""
    found: dict[int, float] = {}
    for run in study.runs:
        value = (run.get(measure) or {}).get(split)
        if run["variant"] == variant and value is not None:
            found[run["seed"]] = float(value)
    return found


def ranking(study: Study, split: str = "test") -> list[tuple[str, Estimate]]:
    """Variants with the estimate of their accuracy, best mean first."""
    found = [(variant, measure_by_seed(study, variant, "accuracy", split)) for variant in study.variants]
    scored = [(variant, interval(list(by_seed.values()))) for variant, by_seed in found if by_seed]
    return sorted(scored, key=lambda entry: -entry[1].mean)


def variant_slugs(study: Study) -> dict[str, str]:
    """A file name for each variant."""
    taken: set[str] = set()
    return {variant: slug(variant, taken) for variant in study.variants}


def gates_with(study: Study, table: str) -> list[tuple[str, str]]:
    """The (variant, gate) pairs of a table whose gate has more than one expert, in the study's order."""
    frame = study.table(table)
    if frame.empty:
        return []
    counts = frame.groupby(["variant", "gate"], sort=False)["expert"].max()
    pairs = [pair for pair, last in counts.items() if last > 0]
    return [pair for variant in study.variants for pair in pairs if isinstance(pair, tuple) and pair[0] == variant]


def file_of(name: str, variant_slug: str, gate: str) -> str:
    """The file name of a figure about one gate."""
    return f"{name}-{variant_slug}" if gate == "root" else f"{name}-{variant_slug}-{slug(gate)}"


def variant_colour(study: Study, shown: Sequence[str], legend: bool = True, symbol: str = "stroke") -> alt.Color:
    """Colour by variant: the same in every figure of the report."""
    palette = colours(study.variants)
    long = max(map(len, shown)) > 12
    return alt.Color(
        "variant:N",
        scale=alt.Scale(domain=list(shown), range=[palette[variant] for variant in shown]),
        legend=alt.Legend(title=None, columns=2 if long else 3, symbolType=symbol, symbolOpacity=1)
        if legend and len(shown) > 1
        else None,
    )


def curve_groups(study: Study) -> list[tuple[str, list[str]]]:
    """The recipe's groups of curves that have runs, else one group with all variants."""
    wanted: Sequence[Mapping[str, Any]] = (study.recipe.get("report") or {}).get("curves") or ()
    groups = [
        (str(group.get("title") or ""), [name for name in group.get("variants") or () if name in study.variants])
        for group in wanted
    ]
    return [group for group in groups if group[1]] or [("", list(study.variants))]


def over_seeds(frame: Frame, by: list[str], value: str = "value") -> Frame:
    """Mean, smallest and largest value over seeds, for each combination of `by`."""
    grouped = frame.groupby(by, sort=False)[value]
    return grouped.agg(mean="mean", low="min", high="max", count="count").reset_index()


def axis_steps(count: int, most: int = 10) -> list[int]:
    """Indices to label on an axis of `count` numbered things: all, or every second, fifth, tenth …"""
    stride = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if count / step <= most)
    return list(range(0, count, stride))
