"""The score against the number of experts of the first gate."""

import altair as alt

from moebius.lab.report.blocks import Panels, Section, Table
from moebius.lab.report.figures import HEIGHT, INK, WIDTH, Figure
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.report.numbers import capitalise, rate, with_interval
from moebius.lab.report.queries import first_gate_by_seed, measure_by_seed
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import interval

ORDER = 25
TITLE = "number of experts"


def section(study: Study) -> Section | None:
    """The recipe's `report.expert_count`: a point with its interval for each variant, and lines for `marks`."""
    spec = (study.recipe.get("report") or {}).get("expert_count") or {}
    names = spec.get("variants") or [name for name in study.variants if name not in (spec.get("marks") or ())]
    lines = []
    for variant in [name for name in names if name in study.variants] if spec else ():
        x = next((gate["experts"] for gate in first_gate_by_seed(study, variant).values()), None)
        for split in ("test", "train"):
            by_seed = measure_by_seed(study, variant, study.score, split)
            if x is not None and by_seed:
                score = interval(list(by_seed.values()))
                lines.append((x, variant, split, score.mean, score.low, score.high, with_interval(score)))
    if not lines:
        return None
    frame = make_frame(lines, columns=["x", "variant", "split", "mean", "low", "high", "text"]).sort_values("x")
    marks = [(name, measure_by_seed(study, name, study.score, "test")) for name in spec.get("marks") or ()]
    rules = make_frame(
        [{"mark": name, "mean": interval(list(by_seed.values())).mean} for name, by_seed in marks if by_seed],
        columns=["mark", "mean"],
    )
    wide = frame.pivot(index=["x", "variant"], columns="split", values="text").reset_index()
    heads = [split for split in ("test", "train") if split in wide]
    rows = [[f"{row['x']:g}", str(row["variant"]), *(str(row[head]) for head in heads)] for _, row in wide.iterrows()]
    rows += [["–", str(row["mark"]), rate(row["mean"]), *([""] * (len(heads) - 1))] for _, row in rules.iterrows()]
    against = f"{study.measure} against {TITLE}"
    table = Table(f"{capitalise(against)}, means with 95 % intervals", [TITLE, "variant", *heads], rows)
    tested = frame[frame["split"] == "test"]
    points = "; ".join(f"{row['x']:g}: {row['text']}" for _, row in tested.iterrows())
    with_marks = "; horizontal lines are other variants' mean on test" if len(rules) else ""
    bars = ", with 95 % intervals of test over seeds (cut where they leave the picture)" if len(study.seeds) > 1 else ""
    caption = f"{capitalise(against)}{bars}{with_marks}."
    figure = Figure("expert-count", _chart(study, frame, rules), caption, f"Test {against}: {points}.")
    return Section("expert-count", capitalise(against), [Panels([figure]), table])


def _chart(study: Study, frame: Frame, rules: Frame) -> alt.TopLevelMixin:
    tested = frame[(frame["split"] == "test") & frame["low"].notna()]
    ends = [*frame["mean"], *rules["mean"]]
    low, high, reach = min(ends), max(ends), max(max(ends) - min(ends), 0.02)
    ends += [end for end in (*tested["low"], *tested["high"]) if low - reach < end < high + reach]
    pad = reach * 0.1
    scale = alt.Scale(domain=[min(ends) - pad, max(ends) + pad], nice=False, zero=False)
    integers = alt.Axis(tickMinStep=1, grid=False, format="~g")
    x = alt.X("x:Q", title=TITLE, axis=integers, scale=alt.Scale(zero=False, nice=False, padding=14))
    y = alt.Y("mean:Q", title=study.measure, scale=scale)
    splits = alt.Scale(domain=["test", "train"], range=["#0072B2", "#D55E00"])
    colour = alt.Color("split:N", scale=splits, legend=alt.Legend(title=None, symbolType="stroke"))
    dash = alt.StrokeDash("split:N", scale=alt.Scale(domain=["test", "train"], range=[[1, 0], [5, 4]]), legend=None)
    base = alt.Chart(frame)
    layers: list[alt.Chart] = [
        base.mark_line(strokeWidth=2, clip=True).encode(x, y, colour, dash),
        base.mark_point(size=45, filled=True, opacity=1, clip=True).encode(x, y, colour),
    ]
    if len(tested):
        bars = alt.Chart(tested).mark_rule(strokeWidth=1.5, clip=True)
        layers.append(bars.encode(x, alt.Y("low:Q", scale=scale), alt.Y2("high:Q"), colour))
    if len(rules):
        level = alt.Chart(rules)
        layers.append(level.mark_rule(strokeWidth=1.5, strokeDash=[2, 3], color=INK).encode(y=y))
        text = level.mark_text(align="right", baseline="bottom", dy=-3, fontSize=12, color=INK)
        layers.append(text.encode(x=alt.value(WIDTH), y=y, text="mark:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
