"""What a section of the page is made of. The template knows how each looks; sections know nothing of HTML."""

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
    """A list; each point has words in bold to begin with, and the rest."""

    kind: ClassVar = "points"
    points: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Code:
    """Text to copy, as it is."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; wide ones scroll in their own box.

    Arguments:
        caption: what it shows.
        columns: the head.
        rows: cells as text; the first `heads` of a row name it.
        heads: how many leading cells are row headings.
        marked: indices of the rows to set off.
        shades: background strength from 0 to 1 for cells (row, column) of a heat table.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    heads: int = 1
    marked: Sequence[int] = ()
    shades: Sequence[Sequence[float | None]] | None = None


@dataclass(frozen=True)
class Panels:
    """Figures side by side where there is room, one below the other where there is not."""

    kind: ClassVar = "panels"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Details:
    """What opens on demand; printed open."""

    kind: ClassVar = "details"
    summary: str
    blocks: Sequence["Block"]


Block = Text | Points | Heading | Code | Table | Panels | Details


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Arguments:
        name: its anchor.
        title: its heading.
        blocks: its content.
    """

    name: str
    title: str
    blocks: Sequence[Block]
