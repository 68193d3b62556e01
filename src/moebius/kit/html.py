"""Small tables for notebooks: what `_repr_html_` of public classes gives."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as HTML; every text is escaped.

    Arguments:
        title: above the table.
        columns: headings.
        rows: cells by row.

    Example:
        >>> html_table("Gate <1>", ["expert"], [[0]])
        '<table><caption>Gate &lt;1&gt;</caption><tr><th>expert</th></tr><tr><td>0</td></tr></table>'
    """
    heading = "".join(f"<th>{escape(str(column))}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><tr>{heading}</tr>{body}</table>"
