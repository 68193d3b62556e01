"""`moebius plan`: how many seeds a difference needs."""

from pathlib import Path
from typing import Annotated

import typer

from moebius.lab.cli._app import app, echo, end_command
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def plan(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study with two seeds or more.")],
    difference: Annotated[float, typer.Option(metavar="X", help="The true difference that is to be found.")] = 0.005,
    power: Annotated[float, typer.Option(metavar="P", help="The chance to find it.")] = 0.8,
    level: Annotated[float, typer.Option(metavar="P", help="Of all of the study's tests together.")] = 0.05,
    comparisons: Annotated[
        int | None, typer.Option(metavar="N", help="How many are corrected for; else all with the baseline.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The reference; else the study's own.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print how many seeds a difference needs, by how the differences of a finished study vary."""
    import json as json_text

    from moebius.lab.comparison import plan_seeds

    seeds = plan_seeds(folder, difference, power, level, comparisons, baseline)
    if json:
        echo(json_text.dumps(seeds.to_dict(), indent=1, ensure_ascii=False))
    else:
        echo(seeds.text(min(PrintableConsole().width, 120)))
