"""Accuracy by data set."""

from moebius.lab.report.blocks import Panels, Section, Table
from moebius.lab.report.charts.dots import dot_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import NONE, rate, with_interval
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate, interval

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
    scores = {
        variant: dict(zip(found["seed"], map(float, found["accuracy"]), strict=True))
        for variant, found in own.groupby("variant", sort=False)
    }
    said = "; ".join(f"{variant} {rate(interval(list(found.values())).mean)}" for variant, found in scores.items())
    position = list(dict.fromkeys(frame["domain"])).index(domain)
    caption = f"Test accuracy on {domain}" + (
        ": diamond = mean, circles = seeds, bar = 95 % interval." if len(study.seeds) > 1 else "."
    )
    title = f"test accuracy on {domain}"
    return Figure(f"domain-{position}", dot_chart(study, scores, title), caption, f"Test accuracy on {domain}: {said}.")
