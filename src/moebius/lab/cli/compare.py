"""`moebius compare`: models beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="DIR (all variants of a study), DIR/VARIANT, or DIR/VARIANT/seed-N."),
    ],
    all_pairs: Annotated[bool, typer.Option("--all", help="Compare every two models.")] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="The reference; else the recipe's baseline, or the first.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="X", help="Differences within ±X do not matter; else the recipe's margin.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Also write one page: PAGE.html, or comparison.html in a folder."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    plugin: Plugins = None,
) -> None:
    """Print which models score better on the test rows, by how much, how sure that is, and at what cost."""
    import json as json_text

    from moebius.lab.comparison import compare as compare_runs

    run_plugins(plugin)
    comparison = compare_runs(*runs, all_pairs=all_pairs, baseline=baseline, margin=margin)
    path = None if out is None else comparison.page(out)
    if json:
        echo(json_text.dumps(comparison.to_dict(), indent=1, ensure_ascii=False))
    else:
        echo(comparison.text(min(PrintableConsole().width, 120)))
        if path is not None:
            echo(f"\npage: {path}")
