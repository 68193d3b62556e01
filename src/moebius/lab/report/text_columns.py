"""Cells under headings as lines of plain text."""

from collections.abc import Iterator, Sequence

# Fewest characters of the column that is cut.
LEAST_WIDTH = 12


def text_columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int = 80,
    cut: str | None = None,
    texts: Sequence[str] = (),
    folded: str | None = None,
) -> list[str]:
    """Lines with the cells of a table, each column as wide as its widest cell; numbers to the right.

    Arguments:
        headings: of the columns.
        rows: cells by row.
        width: most characters of a line.
        cut: heading of the column that is cut where lines would be longer.
        texts: headings of further columns of texts, which begin with numbers.
        folded: heading of the column of names that go on in the next line instead: cut names may look alike.

    Example:
        >>> print("\\n".join(text_columns(["model", "score"], [["linear", ".6"], ["conv", ".842"]])))
          model   score
          linear     .6
          conv     .842
    """
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    narrowed = cut if folded is None else folded
    if narrowed in headings:
        place = headings.index(narrowed)
        over = sum(widths) + 2 * len(widths) - width
        widths[place] = max(widths[place] - max(over, 0), min(LEAST_WIDTH, widths[place]))
    is_text = [heading in texts or heading == narrowed for heading in headings]
    for place, column in enumerate(zip(*rows, strict=True)):
        is_text[place] = is_text[place] or not all(map(_is_number, column))
    lines = []
    for row in _fold([headings, *rows], headings.index(folded), widths) if folded in headings else (headings, *rows):
        cells = [
            f"{_shorten(cell, size):<{size}}" if left else f"{_shorten(cell, size):>{size}}"
            for cell, size, left in zip(row, widths, is_text, strict=True)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _fold(rows: Sequence[Sequence[str]], place: int, widths: Sequence[int]) -> Iterator[Sequence[str]]:
    """The rows, and after each the pieces of its name that do not fit into the column."""
    size = widths[place]
    for row in rows:
        pieces = [row[place][start : start + size] for start in range(0, max(len(row[place]), 1), size)]
        for number, piece in enumerate(pieces):
            cells = row if number == 0 else [""] * len(row)
            yield [piece if column == place else cell for column, cell in enumerate(cells)]


def _shorten(cell: str, size: int) -> str:
    return cell if len(cell) <= size else cell[: size - 1] + "…"


def _is_number(cell: str) -> bool:
    """Whether a cell is a number with its sign and its unit, or stands for one that is missing."""
    return not cell.strip("–") or cell[0] in "+−<.0123456789"
