"""`Explorer`: the views of a model and its rows, computed once and drawn when they are asked for."""

from collections.abc import Callable, Mapping
from pathlib import Path

from moebius.kit.errors import ArgumentError
from moebius.lab.explorer.asked_row import ask_about
from moebius.lab.explorer.page_writer import PageWriter
from moebius.lab.explorer.picture import picture_bytes
from moebius.lab.explorer.row_query import RowQuery
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.explorer.row_table import RowTable, tabulate_rows

# Rows that are computed when the explorer opens.
ROWS = 2000


class Explorer:
    """A model and rows, ready to be looked at.

    Each method gives a part of the page as HTML. Figures of all rows are computed when the explorer is made; what each
    expert says of one row is computed when the row is opened.

    Arguments:
        source: the rows and the model.
        title: of the page.
        rows: how many rows to compute, drawn by a fixed seed where there are more.
        progress: is called with the number of rows that are done, and that of all.

    Raises:
        ArgumentError: `rows` is below 1, or there are none.
    """

    def __init__(
        self, source: RowSource, title: str, rows: int = ROWS, progress: Callable[[int, int], None] | None = None
    ):
        if not len(source):
            raise ArgumentError("data", "needs at least one row", 0, "mb.explore(model, (x, y))")
        self.source, self.title = source, title
        numbers = source.sample(rows)
        tell = None if progress is None else lambda done: progress(done, len(numbers))
        self.table: RowTable = tabulate_rows(source, numbers, tell)
        self.writer = PageWriter(source, self.table, title)

    def page(self, values: Mapping[str, str]) -> str:
        """The whole page, for the fields of a query and, as `row`, the number of a row to open."""
        query = RowQuery.read(values)
        text = values.get("row", "")
        return self.writer.page(query, self.row(self.number(text)) if text else "")

    def rows(self, values: Mapping[str, str]) -> str:
        """A page of the rows that a query asks for."""
        return self.writer.rows(RowQuery.read(values))

    def views(self, values: Mapping[str, str]) -> str:
        """Experts, heat map and map of a gate."""
        return self.writer.views(RowQuery.read(values).gate_of(self.table))

    def row(self, number: int) -> str:
        """The panel of a row of the split, also of one that is not in the table."""
        return self.writer.row(self.source.explain([number], keeps_outputs=True), 0, number)

    def ask(self, fields: Mapping[str, str], picture: bytes | None = None, name: str = "your picture") -> str:
        """The panel of a picture that is uploaded, or of a row that is typed.

        Raises:
            ArgumentError, DataError: the row does not fit the model.
        """
        rows, pixels = ask_about(self.source, fields, picture, name)
        return self.writer.row(rows, 0, None, None if pixels is None else picture_bytes(pixels))

    def picture(self, number: int) -> bytes:
        """A row as a PNG file.

        Raises:
            ArgumentError: there is no such row, or rows are no pictures.
        """
        if not self.source.are_pictures:
            raise ArgumentError("row", "needs rows that are pictures", number, "row/0")
        return picture_bytes(self.source.split.images[self.number(str(number))])

    def number(self, text: str) -> int:
        """The position of a row, of a text such as "12" or "test:12".

        Raises:
            ArgumentError: there is no such row.
        """
        digits = text.removeprefix(f"{self.source.name}:")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) < len(self.source)):
            raise ArgumentError("row", f"needs a number 0 … {len(self.source) - 1}", text, f"{self.source.name}:0")
        return int(digits)

    def export(self, folder: str | Path, rows: int = 300) -> Path:
        """Write the page for some rows into a folder, to be opened without a server.

        Arguments:
            folder: new, empty, or of an earlier export, which is replaced.
            rows: how many rows it shows: those of the largest regret and loss, and evenly spread ones.

        Returns:
            The path of index.html.
        """
        from moebius.lab.explorer.static_export import write_export

        return write_export(self, Path(folder), rows)
