"""The score by data set."""

from moebius.lab.report.blocks import Panels, Section, Table
from moebius.lab.report.charts.dots import dot_chart
from moebius.lab.report.figures import Figure
from moebius.lab.report.frames import Frame
from moebius.lab.report.numbers import NONE, capitalise, rate, with_interval
from moebius.lab.report.source import Study
from moebius.lab.statistics.interval import Estimate, interval

ORDER = 40


def section(study: Study) -> Section | None:
    """Score of each variant on each data set; None where there is only one data set."""
    frame = study.table(f"{study.score}_by_domain")
    if frame.empty or frame["domain"].nunique() < 2:
        return None
    domains = list(dict.fromkeys(frame["domain"]))
    splits = [split for split in ("test", "train") if (frame["split"] == split).any()]
    columns = ["variant", *(f"{domain}, {split}" for split in splits for domain in domains)]
    scores = {
        key: interval(seeds[study.score].tolist())
        for key, seeds in frame.groupby(["variant", "split", "domain"])
        if isinstance(key, tuple)
    }
    rows = [
        [variant, *(_score_cell(scores.get((variant, split, domain))) for split in splits for domain in domains)]
        for variant in study.variants
    ]
    with_intervals = " with 95 % intervals over seeds" if len(study.seeds) > 1 else ""
    figures = [_domain_figure(study, frame[frame["split"] == "test"], domain) for domain in domains if "test" in splits]
    blocks = [Table(f"Mean {study.measure} by data set{with_intervals}", columns, rows), Panels(figures)]
    return Section("domains", f"{capitalise(study.measure)} by data set", blocks)


def _score_cell(score: Estimate | None) -> str:
    return with_interval(score) if score else NONE


def _domain_figure(study: Study, frame: Frame, domain: str) -> Figure:
    scores = {
        variant: dict(zip(seeds["seed"], map(float, seeds[study.score]), strict=True))
        for variant, seeds in frame[frame["domain"] == domain].groupby("variant", sort=False)
    }
    means = "; ".join(f"{variant} {rate(interval(list(by_seed.values())).mean)}" for variant, by_seed in scores.items())
    position = list(dict.fromkeys(frame["domain"])).index(domain)
    caption = f"Test {study.measure} on {domain}" + (
        ": diamond = mean, circles = seeds, bar = 95 % interval." if len(study.seeds) > 1 else "."
    )
    title = f"test {study.measure} on {domain}"
    return Figure(
        f"domain-{position}", dot_chart(study, scores, title), caption, f"Test {study.measure} on {domain}: {means}."
    )
