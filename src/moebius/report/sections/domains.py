"""Accuracy by data set."""

import altair as alt

from moebius.diagnostics.interval import Estimate, interval
from moebius.report.blocks import Panels, Section, Table
from moebius.report.figures import WIDTH, Figure
from moebius.report.frames import Frame
from moebius.report.numbers import NONE, rate, with_interval
from moebius.report.sections._shared import over_seeds, variant_colour
from moebius.report.source import Study

ORDER = 40


def section(study: Study) -> Section | None:
    """Which data set each variant is good at; nothing where there is but one."""
    frame = study.table("accuracy_by_domain")
    if frame.empty or frame["domain"].nunique() < 2:
        return None
    domains = list(dict.fromkeys(frame["domain"]))
    splits = [split for split in ("test", "train") if (frame["split"] == split).any()]
    columns = ["variant", *(f"{domain}, {split}" for split in splits for domain in domains)]
    scores = {
        key: interval(own["accuracy"].tolist())
        for key, own in frame.groupby(["variant", "split", "domain"])
        if isinstance(key, tuple)
    }
    rows = [
        [variant, *(_cell(scores.get((variant, split, domain))) for split in splits for domain in domains)]
        for variant in study.variants
    ]
    marked = " with 95 % intervals over seeds" if len(study.seeds) > 1 else ""
    figures = [_figure(study, frame[frame["split"] == "test"], domain) for domain in domains if "test" in splits]
    blocks = [Table(f"Mean accuracy by data set{marked}", columns, rows), Panels(figures)]
    return Section("domains", "Accuracy by data set", blocks)


def _cell(score: Estimate | None) -> str:
    return with_interval(score) if score else NONE


def _figure(study: Study, frame: Frame, domain: str) -> Figure:
    own = frame[frame["domain"] == domain]
    means = over_seeds(own, ["variant"], "accuracy")
    low, high = own["accuracy"].min(), own["accuracy"].max()
    pad = max(high - low, 0.01) * 0.2
    x = alt.Scale(domain=[max(0.0, low - pad), min(1.0, high + pad)], nice=False, zero=False)
    y = alt.Y("variant:N", sort=list(study.variants), title=None)
    colour = variant_colour(study, study.variants).copy()
    colour.legend = None
    seeds = alt.Chart(own).mark_point(size=26, opacity=0.6, strokeWidth=1.2)
    mean = alt.Chart(means).mark_point(size=70, filled=True, opacity=1, shape="diamond")
    title = f"test accuracy on {domain}"
    chart = alt.layer(
        seeds.encode(alt.X("accuracy:Q", scale=x, title=title), y, colour), mean.encode(alt.X("mean:Q"), y, colour)
    ).properties(width=WIDTH, height=max(60, 28 * len(study.variants)))
    said = "; ".join(f"{row['variant']} {rate(row['mean'])}" for _, row in means.iterrows())
    position = list(dict.fromkeys(frame["domain"])).index(domain)
    caption = f"Test accuracy on {domain}: diamond = mean" + (", circles = seeds." if len(study.seeds) > 1 else ".")
    return Figure(f"domain-{position}", chart, caption, f"Test accuracy on {domain}: {said}.")
