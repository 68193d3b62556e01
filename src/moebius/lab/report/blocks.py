"""The blocks that a section of the page consists of. The template renders them; sections contain no HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from moebius.lab.report.figures import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str


@dataclass(frozen=True)
class Points:
    """A list of points; each is a pair of bold words and the text after them."""

    kind: ClassVar = "points"
    points: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """A list of names and their values, such as a study's date and versions."""

    kind: ClassVar = "facts"
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Code:
    """Text to copy, shown in a fixed-width font with its line breaks."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; wide tables scroll in a box, and the page folds the rows of long ones.

    Arguments:
        caption: the line above the table.
        columns: texts of the head.
        rows: texts of the cells.
        heads: number of cells at the beginning of a row that are its headings.
        marked: indices of the rows to highlight.
        shades: background of each cell, from 0 (white) to 1 (dark), by row and column; None for no background.
        wraps: whether long cells may take several lines.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    heads: int = 1
    marked: Sequence[int] = ()
    shades: Sequence[Sequence[float | None]] | None = None
    wraps: bool = False


@dataclass(frozen=True)
class Panels:
    """Figures side by side, or one below the other where the page is narrow."""

    kind: ClassVar = "panels"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary line that the reader opens; printed open."""

    kind: ClassVar = "details"
    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Picture:
    """A small image of a row.

    Arguments:
        url: a `data:` address that holds it.
        alt: description for readers who cannot see it.
        lines: short texts below it.
        marked: whether to set it apart.
    """

    url: str
    alt: str
    lines: Sequence[str]
    marked: bool = False


@dataclass(frozen=True)
class Pictures:
    """Rows of small images.

    Arguments:
        caption: the line above them.
        groups: pairs of the lead of a row and its images.
    """

    kind: ClassVar = "pictures"
    caption: str
    groups: Sequence[tuple[str, Sequence[Picture]]]


Block = Text | Points | Facts | Heading | Code | Table | Panels | Details | Pictures


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Arguments:
        name: anchor of the section, unique on the page.
        title: heading.
        blocks: content.
    """

    name: str
    title: str
    blocks: Sequence[Block]
