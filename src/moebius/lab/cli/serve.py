"""`moebius serve`: a local page that shows what a run did with single rows."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins
from moebius.lab.console import PrintableConsole

if TYPE_CHECKING:
    from moebius.lab.explorer import Explorer


@app.command()
@end_command()
def serve(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder: DIR/VARIANT/seed-N; with --data a saved model's.")
    ],
    port: Annotated[int, typer.Option(metavar="N", help="Port of the page; 0 for any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="How many rows to compute.")] = 2000,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Rows: test, validation or train.")] = "test",
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a page that needs no server, and end.")
    ] = None,
    export_rows: Annotated[int, typer.Option(min=1, metavar="N", help="How many rows that page shows.")] = 300,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rows of a model that mb.save wrote: .safetensors with tensors x and y, or a run."
        ),
    ] = None,
    task: Annotated[str, typer.Option(metavar="TASK", help="What such a model has learned.")] = "classification",
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with data sets in the hub's parquet layout.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Show what RUN did with single rows: its gates' scores, what every expert says, and what each would change.

    The page is on this machine alone, and loads nothing from elsewhere.
    """
    run_plugins(plugin)
    console = PrintableConsole(stderr=True, highlight=False)
    explorer = _explorer(console, run, rows, split, data, task, data_dir)
    if export is not None:
        page = explorer.export(export, export_rows)
        console.print(f"page: {escape(str(page))}", soft_wrap=True)
        return
    from moebius.lab.explorer.server import Server

    with Server(explorer, port) as server:
        echo(server.url)
        console.print("[dim]Ctrl-C ends it.[/]")
        if browser and not server.open():
            console.print("[dim]There is no browser to open: paste the address into one.[/]")
        try:
            server.wait()
        except KeyboardInterrupt:
            console.print("\nended")


def _explorer(
    console: Console, run: Path, rows: int, split: str, data: Path | None, task: str, data_dir: Path | None
) -> "Explorer":
    from moebius.lab.explorer import explore_run, explore_saved
    from moebius.lab.recipe.plugins import suggest_plugins

    with console.status("reading") if console.is_terminal else nullcontext() as status:

        def tell(done: int, every: int) -> None:
            if status is not None:
                status.update(f"row {done:,} of {every:,}")

        if data is not None:
            return explore_saved(run, data, task, rows, tell, data_dir)
        with suggest_plugins(run):
            return explore_run(run, rows, split, data_dir, tell)
