"""Drawings inside of a page: as short as they can be written, and labelled as a whole."""

import html
import re

from markupsafe import Markup

from moebius.lab.report.figures import Figure

# What a drawing says to programs that read single marks, and fonts, which the page's style sheet sets.
_UNUSED = re.compile(
    r' (?:role="graphics-[^"]*"|aria-roledescription="[^"]*"|aria-hidden="true"'
    r'|class="(?:mark|background|foreground)[^"]*"|font-family="[^"]*"|opacity="1"|pointer-events="none"'
    r'|xmlns(?::xlink)?="[^"]*"|version="1.1")'
)
_COLOUR = re.compile(r"rgb\((\d+), ?(\d+), ?(\d+)\)")
_DECIMAL = re.compile(r"\d+\.\d{2,}")


def inline_svg(svg: str, figure: Figure) -> tuple[Markup, int]:
    """A drawing as an element of a page, labelled with its alternative text, and its width in pixels.

    Coordinates are rounded to a hundredth of a pixel. The drawing is otherwise the file's.
    """
    # The page shows through: it may be dark.
    svg = re.sub(r'<rect width="[\d.]+" height="[\d.]+" fill="white"/>', "", svg, count=1)
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    svg = re.sub(r"<[^>]*>", lambda match: _shorten(match[0]), svg).replace("<g></g>", "")
    label = html.escape(figure.alt).replace("\\", "\\\\")
    size = re.compile(r'(<svg\b[^>]*?) width="[\d.]+" height="[\d.]+"')
    element = size.sub(rf'\1 role="img" aria-label="{label}"', svg, count=1)
    return Markup(element), round(float(width[1])) if width else 400


def _shorten(tag: str) -> str:
    """A tag without what is not used on a page, with short colours and numbers.

    Example:
        >>> _shorten('<path aria-hidden="true" d="M0.5,3.14159h0.333333" fill="rgb(19, 69, 130)"/>')
        '<path d="M0.5,3.14h0.33" fill="#134582"/>'
    """
    tag = _COLOUR.sub(lambda match: "#" + "".join(f"{int(part):02x}" for part in match.groups()), _UNUSED.sub("", tag))
    return _DECIMAL.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), tag)
