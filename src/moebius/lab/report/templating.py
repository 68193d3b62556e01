"""What pages share: their templates' environment and their style sheet."""

import re
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


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
