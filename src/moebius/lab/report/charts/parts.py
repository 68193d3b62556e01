"""Scales, axes and colours that several charts share."""

from collections.abc import Sequence

import altair as alt

from moebius.lab.report.figures import COLOURS, REST, colours
from moebius.lab.report.frames import Frame
from moebius.lab.report.queries import ranking
from moebius.lab.report.source import Study

# Up to this number, experts have a colour, a column or a histogram each; figures of more experts are heat maps.
FEW = 4
SHADES = ["#f7fbff", "#9ecae1", "#3182bd", "#08306b"]
ORANGES = ["#fdae6b", "#e6550d", "#7f2704"]


def blues(top: float) -> alt.Scale:
    """White to dark blue, from 0 to `top`; values above `top` are dark blue too."""
    return alt.Scale(domain=[0, top], range=SHADES, clamp=True)


def weight_shades(low: float, top: float) -> alt.Scale:
    """`blues(top)` where the smallest weight `low` is 0; else orange for negative, white for 0, blue for positive."""
    if low > -0.0005:
        return blues(top)
    end = max(-low, top)
    return alt.Scale(domain=[-end, end], range=[*reversed(ORANGES), *SHADES], clamp=True, interpolate="rgb")


def epoch_axis(frame: Frame, most: int) -> alt.X:
    """Epochs from left to right, with a tick for each if there are at most `most`."""
    epochs = sorted({int(epoch) for epoch in frame["epoch"]})
    ticks = {"values": epochs} if len(epochs) <= most else {"tickCount": most, "tickMinStep": 1}
    domain = [epochs[0], epochs[-1]] if len(epochs) > 1 else [epochs[0] - 1, epochs[0] + 1]
    axis = alt.Axis(format="d", grid=False, **ticks)  # type: ignore[arg-type]
    return alt.X("epoch:Q", axis=axis, scale=alt.Scale(domain=domain, nice=False))


def score_limits(study: Study, values: Sequence[float], pad: float) -> tuple[float, float]:
    """The ends of an axis of scores, `pad` beyond the smallest and the largest value; a share stays in 0 … 1."""
    low, high = min(values) - pad, max(values) + pad
    return (max(0.0, low), min(1.0, high)) if study.score.endswith("accuracy") else (low, high)


def axis_steps(count: int, most: int = 10) -> list[int]:
    """Indices to label on an axis of `count` numbered things: every one, or every second, fifth, tenth …

    Example:
        >>> axis_steps(3), axis_steps(20)
        ([0, 1, 2], [0, 2, 4, 6, 8, 10, 12, 14, 16, 18])
    """
    stride = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if count / step <= most)
    return list(range(0, count, stride))


def variant_colour(study: Study, variants: Sequence[str], legend: bool = True, symbol: str = "stroke") -> alt.Color:
    """Colour by variant, the same in every figure of the report.

    Of more variants than there are colours, the best on test keep theirs. The others have in each figure the colours
    that are left, and are grey where none is.

    Arguments:
        study: all its variants share the palette.
        variants: those in the figure.
        legend: whether to draw one, if there are several variants.
        symbol: shape of the legend's symbols.
    """
    order = [name for name, _ in ranking(study)] if len(study.variants) > len(COLOURS) else []
    palette = colours(list(dict.fromkeys([*order, *study.variants])))
    left = [colour for colour in COLOURS if colour not in {palette[name] for name in variants}]
    others = [name for name in variants if palette[name] == REST]
    if len(others) <= len(left):
        palette |= dict(zip(others, left, strict=False))
    coloured = [name for name in variants if palette[name] != REST]
    has_long_names = max(map(len, variants)) > 12
    return alt.Color(
        "variant:N",
        scale=alt.Scale(domain=list(variants), range=[palette[variant] for variant in variants]),
        legend=alt.Legend(
            values=coloured, title=None, columns=2 if has_long_names else 3, symbolType=symbol, symbolOpacity=1
        )
        if legend and len(variants) > 1
        else None,
    )
