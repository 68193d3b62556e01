"""`moebius job`: one run, stage or cohort of a planned study, from its folder alone."""

from pathlib import Path
from typing import Annotated

import typer

from moebius.lab.cli._app import app, end_command
from moebius.lab.console import PrintableConsole


@app.command()
@end_command("finished runs are kept, and the same command goes on with what was under way")
def job(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...",
            help="Folders that `moebius run RECIPE --plan-only` prints; - to receive them from a parent process.",
        ),
    ],
) -> None:
    """Train the runs of these folders; what is finished is kept, what was interrupted goes on."""
    from moebius.kit.allocator import tune_allocator

    tune_allocator()
    from moebius.lab.study.worker import do_jobs, serve_jobs

    if folders == ["-"]:
        serve_jobs()
    do_jobs([Path(folder) for folder in folders], PrintableConsole())
