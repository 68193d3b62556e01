"""`moebius diagnose`: what the gates and experts of finished runs suffer from, and what helps."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def diagnose(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="DIR/VARIANT/seed-N, or DIR/VARIANT or DIR for all runs in it."),
    ],
    tries: Annotated[
        bool, typer.Option("--try", help="Fit what the findings suggest on a half of the rows, measure on the other.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the gate's own network on the task, to compare with.")
    ] = False,
    rows: Annotated[int, typer.Option(min=40, metavar="N", help="How many rows to look at.")] = 5000,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with data sets in the hub's parquet layout.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    plugin: Plugins = None,
) -> None:
    """Print what is wrong with gates and experts, on held-out rows or else test rows, and what to try.

    It ends with 0 whether anything is found or not.
    """
    import json as json_text

    from moebius.lab.cli._diagnosis import print_diagnoses
    from moebius.lab.recipe.plugins import suggest_plugins
    from moebius.lab.study.diagnose_run import SCHEMA, diagnose_run, find_runs

    run_plugins(plugin)
    folders, diagnoses = find_runs(runs), []
    console = PrintableConsole(stderr=True)
    with console.status("") if console.is_terminal else nullcontext() as status:
        for number, run in enumerate(folders, 1):
            tell = _teller(status, f"run {number} of {len(folders)}, {run}")
            tell("examined")
            with suggest_plugins(run):
                diagnosis = diagnose_run(run, rows, baseline, data_dir)
            diagnoses.append(diagnosis.try_remedies(progress=tell) if tries else diagnosis)
    if json:
        document = {"schema": SCHEMA, "runs": [each.to_dict() for each in diagnoses]}
        echo(json_text.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_diagnoses(PrintableConsole(), diagnoses, tries)


def _teller(status: object, title: str) -> Callable[[str], None]:
    """A function that shows a line where there is a terminal."""
    update = getattr(status, "update", None)
    return (lambda line: update(f"{title}: {line}")) if update is not None else lambda line: None
