"""A comparison as one page that loads nothing from elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from moebius.kit.files import write_text
from moebius.lab.comparison.comparison import Comparison
from moebius.lab.comparison.pair import Pair
from moebius.lab.comparison.wording import group_cells, model_cells, remarks_of, row_cells, seed_cells, verdict_text
from moebius.lab.report.figures import COLOURS, INK, WIDTH, Figure, render
from moebius.lab.report.frames import make_frame
from moebius.lab.report.inline_svg import inline_svg
from moebius.lab.report.numbers import count, listing, signed_with_interval
from moebius.lab.report.source import measure_words
from moebius.lab.report.templating import make_environment, page_style

# Classes and domains of each pair that the page shows.
SHOWN_GROUPS = 5


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the page: the verdicts and their intervals, then tables.

    Arguments:
        comparison: of two models or more.
        path: of the page, or of a folder that gets `comparison.html`.

    Returns:
        The path of the page.
    """
    path = path if path.suffix == ".html" else path / "comparison.html"
    environment = make_environment("moebius.lab.comparison")
    pairs = sorted(comparison.pairs, key=lambda pair: -pair.primary.mean)
    figure = _figure(comparison, pairs)
    svg, width = inline_svg(render(figure)[0], figure)
    names = [model.name for model in comparison.models]
    rows = comparison.pairs[0].over_rows.count
    measure = measure_words(comparison.score_name)
    text = environment.get_template("comparison.html").render(
        title=f"{listing(names) if len(names) <= 3 else f'{len(names)} models'}: which is better?",
        lead=_lead(pairs, measure, rows),
        verdicts=[(pair.name, f"beside {pair.reference}: {verdict_text(pair)}.") for pair in pairs],
        figure=svg,
        width=width,
        caption=figure.caption,
        tables=_tables(comparison),
        remarks=remarks_of(comparison),
        folders=[(model.name, str(model.study / model.variant)) for model in comparison.models],
        style=page_style(),
    )
    write_text(path, text)
    return path


def _lead(pairs: Sequence[Pair], measure: str, rows: int) -> str:
    """One sentence about all pairs together, which claims what their verdicts claim."""
    where = f"by test {measure} over {count(rows)} rows"
    several = len({pair.reference for pair in pairs}) > 1
    words = []
    for start, text in (("better", "better"), ("worse", "worse"), ("level", "level within the margin")):
        chosen = [pair for pair in pairs if pair.verdict.startswith(start)]
        if chosen:
            names = [f"{pair.name} (than {pair.reference})" if several else pair.name for pair in chosen]
            verb = "is" if len(chosen) == 1 else "are"
            end = "" if several else f" {'with' if start == 'level' else 'than'} {pairs[0].reference}"
            words.append(f"{listing(names)} {verb} {text}{end}")
    apart = [pair for pair in pairs if pair.verdict.startswith("not")]
    if apart:
        names = [f"{pair.name} and {pair.reference}" if several else pair.name for pair in apart]
        verb = "is" if len(apart) == 1 else "are"
        end = "one from the other" if several else f"from {pairs[0].reference}"
        words.append(f"{listing(names)} {verb} not told apart {end}")
    single = " These are single trainings: other seeds may decide otherwise." * any(
        pair.over_seeds is None for pair in pairs
    )
    return f"{'; '.join(words)}, {where}.{single}"


def _tables(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    tables = [("The models: test score over seeds, and what they cost", *model_cells(comparison))]
    for reference in dict.fromkeys(pair.reference for pair in comparison.pairs):
        pairs = [pair for pair in comparison.pairs if pair.reference == reference]
        if any(pair.over_seeds is not None for pair in pairs):
            tables.append((f"Minus {reference}, over seeds: the training varies", *seed_cells(pairs)))
        tables.append((f"Minus {reference}, over test rows: these trained models on other rows", *row_cells(pairs)))
        groups = [(pair, group) for pair in pairs for group in pair.groups[:SHOWN_GROUPS]]
        if groups:
            tables.append((f"Where they differ most from {reference}, over rows", *group_cells(groups)))
    return tables


def _figure(comparison: Comparison, pairs: Sequence[Pair]) -> Figure:
    """Each difference with its interval, and a line where there is none."""
    several = len({pair.reference for pair in pairs}) > 1
    labels = [f"{pair.name} − {pair.reference}" if several else pair.name for pair in pairs]
    lines = [
        (label, pair.primary.mean, pair.primary.low, pair.primary.high)
        for label, pair in zip(labels, pairs, strict=True)
    ]
    frame = make_frame(lines, ["pair", "mean", "low", "high"])
    measure, end = measure_words(comparison.score_name), "" if several else f" minus {pairs[0].reference}"
    title = f"difference of the test {measure}{'' if several else f' from {pairs[0].reference}'}"
    ends = [0.0, *frame["mean"], *frame["low"].dropna(), *frame["high"].dropna()]
    pad = 0.06 * max(max(ends) - min(ends), 0.01)
    scale = alt.Scale(domain=[min(ends) - pad, max(ends) + pad], nice=False, zero=False)
    axis = alt.Axis(tickCount=6, labelExpr="datum.value == 0 ? '0' : format(datum.value, '+~f')")
    x = alt.X("mean:Q", title=title, scale=scale, axis=axis)
    y = alt.Y("pair:N", sort=labels, title=None, axis=alt.Axis(labelLimit=260))
    layers = [
        alt.Chart(make_frame([(0.0,)], ["zero"])).mark_rule(color=INK, strokeDash=[3, 3]).encode(x="zero:Q"),
        alt.Chart(frame.dropna())
        .mark_rule(strokeWidth=2.5, color=COLOURS[0])
        .encode(alt.X("low:Q", scale=scale, title=title), alt.X2("high:Q"), y),
        alt.Chart(frame).mark_point(size=80, filled=True, opacity=1, shape="diamond", color=COLOURS[0]).encode(x, y),
    ]
    chart = alt.layer(*layers).properties(width=1.4 * WIDTH, height=max(60, 30 * len(pairs)))
    percent = f"{comparison.level:.0%}".replace("%", " %")
    over = "seeds" if all(pair.over_seeds is not None for pair in pairs) else "seeds, or rows where there is one seed"
    caption = f"Test {measure}{end}, with its {percent} interval over {over}; not corrected for several comparisons."
    texts = "; ".join(
        f"{label} {signed_with_interval(pair.primary)}" for label, pair in zip(labels, pairs, strict=True)
    )
    return Figure("differences", chart, caption, f"{caption} {texts}.")
