"""The page: title, sections and table of contents, in one HTML file that loads nothing from elsewhere."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moebius.kit.files import atomic_path, remove_file, write_text
from moebius.lab.report.blocks import Block, Details, Panels, Section
from moebius.lab.report.claims import make_claims
from moebius.lab.report.figures import Figure, render
from moebius.lab.report.folding import fold_section
from moebius.lab.report.headline import headline
from moebius.lab.report.inline_svg import inline_svg
from moebius.lab.report.queries import ranking
from moebius.lab.report.source import Study
from moebius.lab.report.templating import make_environment, page_style

# How many rows of a long table and how many of many figures are seen at first; the style sheet counts likewise.
FOLD = {"rows": 10, "figures": 2}


def write_page(study: Study, sections: Sequence[Section]) -> Path:
    """Draw every figure into figures/ and write report.html; where a figure cannot be drawn, the page says why.

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
    environment = make_environment("moebius.lab.report")
    text = environment.get_template("report.html").render(
        title=study.recipe.get("title") or study.name,
        headline=headline(study),
        sections=sections,
        drawn=drawn,
        fold=FOLD,
        style=page_style(),
    )
    path = study.folder / "report.html"
    write_text(path, text)
    return path


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
    try:
        svg, png = render(figure)
    except Exception as error:  # of the drawing library, which raises many types
        warnings.warn(f"figure {figure.name} is not drawn: {error}", stacklevel=2)
        for suffix in ("svg", "png"):  # of an earlier report
            remove_file(folder / f"{figure.name}.{suffix}")
        return {"failure": f"This figure could not be drawn ({type(error).__name__}); its numbers are in the tables."}
    for suffix, content in (("svg", svg.encode()), ("png", png)):
        with atomic_path(folder / f"{figure.name}.{suffix}", sync=False) as temporary:
            temporary.write_bytes(content)
    element, width = inline_svg(svg, figure)
    return {"svg": element, "width": width}
