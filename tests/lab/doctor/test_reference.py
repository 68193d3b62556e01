"""docs/doctor.md has every illness and every remedy as the code describes them."""

from pathlib import Path

from moebius.kit.registry import kinds
from moebius.lab.doctor.reference import illness_table, remedy_table

PAGE = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_the_page_has_the_tables():
    """Where this fails, put the tables of these functions into the page."""
    for table, room in ((illness_table(), "illnesses"), (remedy_table(), "remedies")):
        assert len(table.splitlines()) == 2 + len(kinds(room))
        assert table in PAGE
