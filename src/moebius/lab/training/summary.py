"""A few named figures as lines of text and as a small HTML table, for what a session prints."""

from collections.abc import Iterable
from html import escape

Rows = Iterable[tuple[str, str]]


def text_summary(title: str, rows: Rows) -> str:
    """The title, and a line for each name and value.

    Example:
        >>> print(text_summary("Trained", [("accuracy", "0.5")]))
        Trained
          accuracy: 0.5
    """
    return "\n".join([title, *(f"  {name}: {value}" for name, value in rows)])


def html_summary(title: str, rows: Rows) -> str:
    """A table with the title as caption and a row for each name and value, all escaped.

    Example:
        >>> html_summary("Trained", [("accuracy", "<1")])
        '<table><caption>Trained</caption><tr><th align="left">accuracy</th><td>&lt;1</td></tr></table>'
    """
    cells = "".join(f'<tr><th align="left">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"
