"""The page: title, sections and table of contents, in one HTML file that loads nothing from elsewhere."""

import html
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moebius.kit.files import atomic_path, write_text
from moebius.lab.report.blocks import Block, Details, Panels, Section
from moebius.lab.report.claims import make_claims
from moebius.lab.report.figures import Figure, render
from moebius.lab.report.folding import fold_section
from moebius.lab.report.headline import headline
from moebius.lab.report.queries import ranking
from moebius.lab.report.source import Study

# How many rows of a long table and how many of many figures are seen at first; the style sheet counts likewise.
FOLD = {"rows": 10, "figures": 2}


def write_page(study: Study, sections: Sequence[Section]) -> Path:
    """Draw every figure into figures/ and write report.html.

    Returns:
        The path of report.html.
    """
    order = _order_variants(study)
    sections = [fold_section(section, order) for section in sections]
    drawn = {
        figure.name: _draw_figure(study.folder / "figures", figure)
        for section in sections
        for figure in _figures_of(section.blocks)
    }
    environment = Environment(
        loader=PackageLoader("moebius.lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _keep_together
    text = environment.get_template("report.html").render(
        title=study.recipe.get("title") or study.name,
        headline=headline(study),
        sections=sections,
        drawn=drawn,
        fold=FOLD,
        style=Markup(files("moebius.lab.report").joinpath("templates/style.css").read_text(encoding="utf-8")),
    )
    path = study.folder / "report.html"
    write_text(path, text)
    return path


def _keep_together(text: str) -> str:
    """The text with no line break before the sign of a percentage, inside an interval or after the p of its value."""
    text = re.sub(r"\[[^\[\]]{3,20}\]", lambda match: match[0].replace(", ", ",\u00a0"), text)
    return re.sub(r"\bp (?=[<.1])", "p\u00a0", text).replace(" %", "\u00a0%")


def _order_variants(study: Study) -> list[str]:
    """The variants of the first screen's claims, then the others, the best mean first."""
    claims, ranked = make_claims(study), [name for name, _ in ranking(study)]
    named = [] if claims is None else [claims.pick, *([claims.gate.mixture] if claims.gate else []), claims.baseline]
    return list(dict.fromkeys([*named, *ranked, *study.variants]))


def _figures_of(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Panels):
            yield from block.figures
        elif isinstance(block, Details):
            yield from _figures_of(block.blocks)


def _draw_figure(folder: Path, figure: Figure) -> dict[str, Any]:
    svg, png = render(figure)
    for suffix, content in (("svg", svg.encode()), ("png", png)):
        with atomic_path(folder / f"{figure.name}.{suffix}", sync=False) as temporary:
            temporary.write_bytes(content)
    return {"svg": _inline_svg(svg, figure), "width": _svg_width(svg)}


def _svg_width(svg: str) -> int:
    match = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    return round(float(match[1])) if match else 400


def _inline_svg(svg: str, figure: Figure) -> Markup:
    # The page shows through: it may be dark.
    svg = re.sub(r'<rect width="[\d.]+" height="[\d.]+" fill="white"/>', "", svg, count=1)
    size = re.compile(r'(<svg\b[^>]*?) width="[\d.]+" height="[\d.]+"')
    return Markup(
        size.sub(rf'\1 role="img" aria-label="{html.escape(figure.alt).replace(chr(92), chr(92) * 2)}"', svg, count=1)
    )
