"""The page: header, table of contents and sections, in one HTML file that loads nothing from elsewhere."""

import html
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moebius.kit.files import atomic_path, write_text
from moebius.lab.report.blocks import Block, Details, Panels, Section
from moebius.lab.report.figures import Figure, render
from moebius.lab.report.numbers import count
from moebius.lab.report.source import Study


def write_page(study: Study, sections: Sequence[Section]) -> Path:
    """Draw every figure into figures/ and write report.html.

    Returns:
        The path of report.html.
    """
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
    # No line begins with the sign of a percentage.
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    text = environment.get_template("report.html").render(
        title=study.recipe.get("title") or study.name,
        name=study.name,
        description=study.recipe.get("description") or "",
        facts=_header_facts(study),
        sections=sections,
        drawn=drawn,
        style=Markup(files("moebius.lab.report").joinpath("templates/style.css").read_text(encoding="utf-8")),
    )
    path = study.folder / "report.html"
    write_text(path, text)
    return path


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
    size = re.compile(r'(<svg\b[^>]*?) width="[\d.]+" height="[\d.]+"')
    return Markup(
        size.sub(rf'\1 role="img" aria-label="{html.escape(figure.alt).replace(chr(92), chr(92) * 2)}"', svg, count=1)
    )


def _header_facts(study: Study) -> list[tuple[str, str]]:
    data = study.about.get("data") or {}
    sizes = [
        f"{count(data[key])} {word}" for key, word in (("train_rows", "train"), ("test_rows", "test")) if data.get(key)
    ]
    names = ", ".join(str(name) for name in data.get("domains") or ())
    noun = "rows" if "cardinalities" in (data.get("facts") or {}) else "images"
    rows = "; ".join(part for part in (names, f"{', '.join(sizes)} {noun}" if sizes else "") if part)
    classes = f"; {len(study.classes)} classes" if study.classes else ""
    fingerprint = f"; fingerprint {data['fingerprint']}" if data.get("fingerprint") else ""
    stamp = study.about.get("finished") or study.about.get("date")
    when = (
        str(stamp)
        if stamp
        else datetime.fromtimestamp((study.folder / "results.json").stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    )
    points = f"; {len(study.points)} points of a sweep" if study.points else ""
    facts = [
        ("study", study.name),
        ("date", when),
        ("data", rows + classes + fingerprint),
        ("runs", f"{len(study.variants)} variants, seeds {', '.join(map(str, study.seeds))}{points}"),
        ("hardware", _list_pairs(study.about.get("hardware"))),
        ("versions", _list_pairs(study.about.get("versions"))),
        ("again", _run_command(study)),
    ]
    return [(name, value) for name, value in facts if value]


def _run_command(study: Study) -> str:
    """The command line that runs the study again; an empty text where none does."""
    if study.about.get("reference") == "mb.fit":
        return ""
    words = ["moebius", "run", str(study.about.get("reference") or study.name)]
    words += ["--preset", str(study.about["preset"])] if study.about.get("preset") else []
    words += [str(override) for override in study.about.get("overrides") or ()]
    return shlex.join([*words, "--seeds", str(len(study.seeds))])


def _list_pairs(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{str(key).replace('_', ' ')} {part}" for key, part in value.items() if part not in (None, "")
        )
    return str(value) if value else ""
