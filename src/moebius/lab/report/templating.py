"""What pages share: their templates' environment, their style sheet, and drawings inside of the page."""

import html
import re
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moebius.lab.report.figures import Figure


def make_environment(package: str) -> Environment:
    """The environment of the templates in a package's folder `templates`; it escapes, and refuses unknown names.

    The filter `unbroken` keeps parts of numbers on one line.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = keep_together
    return environment


def keep_together(text: str) -> str:
    """The text with no line break before the sign of a percentage, inside an interval or after the p of its value.

    Example:
        >>> keep_together("95 % [1, 2]").count(" ")
        1
    """
    text = re.sub(r"\[[^\[\]]{3,20}\]", lambda match: match[0].replace(", ", ",\u00a0"), text)
    return re.sub(r"\bp (?=[<.1])", "p\u00a0", text).replace(" %", "\u00a0%")


def page_style() -> Markup:
    """The style sheet of reports, for the page's own element `style`."""
    return Markup(files("moebius.lab.report").joinpath("templates/style.css").read_text(encoding="utf-8"))


def inline_svg(svg: str, figure: Figure) -> tuple[Markup, int]:
    """A drawing as an element of a page, labelled with its alternative text, and its width in pixels."""
    # The page shows through: it may be dark.
    svg = re.sub(r'<rect width="[\d.]+" height="[\d.]+" fill="white"/>', "", svg, count=1)
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    label = html.escape(figure.alt).replace("\\", "\\\\")
    size = re.compile(r'(<svg\b[^>]*?) width="[\d.]+" height="[\d.]+"')
    element = size.sub(rf'\1 role="img" aria-label="{label}"', svg, count=1)
    return Markup(element), round(float(width[1])) if width else 400
