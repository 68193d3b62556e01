"""The report of a study: tables first, then figures drawn from them, then one self-contained page.

`build(out)` does all of it for a study's folder; `results_table(runs)` prints the results in a terminal.
"""

from pathlib import Path

from moebius.lab.report.terminal import results_table

__all__ = ["build", "results_table"]


def build(out: Path) -> Path:
    """Write the report of a study: results.csv, tables/*.csv, figures/*.svg and *.png, and report.html.

    Reads study.json, results.json and the runs' routing.parquet; parts whose rows are missing are left out. Building
    twice gives the same files.

    Arguments:
        out: the study's folder.

    Returns:
        The path of report.html.

    Raises:
        StudyError: the folder holds no finished study, or one that cannot be read.

    Reference: the folder's files are described in docs/results-schema.md.
    """
    # Charts and tables take a second to import: not for those who only ask for the terminal's table.
    from moebius.lab.report.page import write_page
    from moebius.lab.report.sections import sections_of
    from moebius.lab.report.source import read_study
    from moebius.lab.report.tables import tabulate, write_tables

    study = tabulate(read_study(Path(out)))
    write_tables(study)
    return write_page(study, sections_of(study))
