"""`moebius report`: the page of a finished study."""

from pathlib import Path
from typing import Annotated

import typer

from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins


@app.command()
@end_command("the same command writes the report anew")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, as given to --out.")],
    plugin: Plugins = None,
) -> None:
    """Write a study's report, tables and figures anew."""
    from moebius.lab.report import build

    run_plugins(plugin)
    echo(build(folder))
