"""Heat map of the accuracy of single experts: expert by class."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moebius.lab.report.charts.parts import SHADES
from moebius.lab.report.figures import INK, WIDTH, Figure
from moebius.lab.report.frames import make_frame
from moebius.lab.report.numbers import listing, rate
from moebius.lab.report.source import Study

# Pixels: two digits fit into a cell of this width.
DIGITS_WIDTH = 24


def alone_chart(
    study: Study,
    group: Sequence[str],
    by_seed: Mapping[int, Sequence[Mapping[str, Any]]],
    labels: Sequence[str],
    name: str,
) -> Figure | None:
    """The heat map of a pool of experts, means over seeds; the classes that an expert was trained on are framed.

    Arguments:
        study: gives the classes.
        group: variants that use the pool, for the description.
        by_seed: seed → entries of `experts_alone` in results.json.
        labels: names of the experts, by place in the entries.
        name: of the figure's files.

    Returns:
        None where no expert has accuracies by class.
    """
    classes = list(study.classes)
    first = by_seed[min(by_seed)]
    lines = []
    for place, label in enumerate(labels):
        known_classes = first[place].get("classes")
        for number, class_name in enumerate(classes):
            values = [_class_accuracy(experts, place, number) for experts in by_seed.values()]
            accuracies = [value for value in values if value is not None]
            if accuracies:
                mean = sum(accuracies) / len(accuracies)
                is_known = known_classes is not None and class_name in known_classes
                lines.append((label, class_name, mean, _two_digits(mean), is_known))
    if not lines:
        return None
    frame = make_frame(lines, ["label", "of", "accuracy", "text", "known"])
    cell, height = WIDTH / len(classes), max(8.0, min(22.0, 420 / len(labels)))
    readable = cell >= 8
    size = min(11.0, cell - 1)
    turned = alt.Axis(
        ticks=False, domain=False, labelAngle=-90, labels=readable, labelFontSize=max(size, 1), grid=False
    )
    plain = alt.Axis(ticks=False, domain=False, grid=False, labelFontSize=min(12.0, height), labelLimit=120)
    x = alt.X("of:N", sort=classes, title=None, axis=turned, scale=alt.Scale(paddingInner=0.04))
    y = alt.Y("label:N", sort=list(labels), title=None, axis=plain, scale=alt.Scale(paddingInner=0.06))
    colour = alt.Color(
        "accuracy:Q",
        scale=alt.Scale(domain=[0, 1], range=SHADES),
        legend=alt.Legend(title="accuracy alone", gradientLength=WIDTH / 2),
    )
    layers: list[Any] = [alt.Chart(frame).mark_rect().encode(x, y, colour)]
    if frame["known"].any():
        frames = alt.Chart(frame[frame["known"]]).mark_rect(fill=None, stroke=INK, strokeWidth=1.1)
        layers.append(frames.encode(x, y))
    if cell >= DIGITS_WIDTH and height >= 12:
        dark = alt.condition("datum.accuracy > 0.55", alt.value("white"), alt.value(INK))
        layers.append(alt.Chart(frame).mark_text(fontSize=10).encode(x, y, text="text:N", color=dark))
    chart = alt.layer(*layers).properties(width=WIDTH, height=height * len(labels))
    best = frame.loc[frame.groupby("label", sort=False)["accuracy"].idxmax()]
    best_classes = "; ".join(f"{row['label']} {row['of']} {rate(row['accuracy'])}" for _, row in best.iterrows())
    over = f", means over {len(by_seed)} seeds" if len(by_seed) > 1 else ""
    framed = "; framed are the classes that it was trained on" if frame["known"].any() else ""
    caption = f"Test accuracy of each expert alone by class{over}{framed}."
    return Figure(name, chart, caption, f"{listing(list(group))}: {caption} Best class of each: {best_classes}.")


def _class_accuracy(experts: Sequence[Mapping[str, Any]], place: int, number: int) -> float | None:
    by_class = experts[place].get("by_class") or () if place < len(experts) else ()
    return float(by_class[number]) if number < len(by_class) and by_class[number] is not None else None


def _two_digits(value: float) -> str:
    return "0" if value < 0.005 else f"{value:.2f}".removeprefix("0")
