"""The report of a study: tables, figures drawn from the tables, and one self-contained page with both.

`build(out)` writes them into the study's folder; `build_results_table(runs)` makes the table for a terminal.
"""

from pathlib import Path

from moebius.lab.report.terminal import build_results_table

__all__ = ["build", "build_results_table"]


def build(out: Path) -> Path:
    """Write the report of a study: results.csv, tables/*.csv, figures/*.svg and *.png, and report.html.

    It reads study.json, results.json and the routing.parquet of every run. Sections whose data are missing are left
    out. Building again writes the same bytes.

    Arguments:
        out: the study's folder.

    Returns:
        The path of report.html.

    Raises:
        StudyError: the folder contains no finished study, or a file of it cannot be read.

    Reference: the folder's files are described in docs/results-schema.md.
    """
    # Importing charts and tables takes a second, which `build_results_table` alone does not need.
    from moebius.lab.report.page import write_page
    from moebius.lab.report.sections import sections_of
    from moebius.lab.report.source import read_study
    from moebius.lab.report.tables import tabulate, write_tables

    study = tabulate(read_study(Path(out)))
    write_tables(study)
    return write_page(study, sections_of(study))
