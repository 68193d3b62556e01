"""`moebius report` and `predict`: the uses of a finished study."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moebius.lab.cli._app import Plugins, app, end_command, run_plugins


@app.command()
@end_command("the same command writes the report anew")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, as given to --out.")],
    plugin: Plugins = None,
) -> None:
    """Write a study's report, tables and figures anew."""
    from moebius.lab.report import build

    run_plugins(plugin)
    typer.echo(build(folder))


@app.command()
@end_command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: DIR/VARIANT/seed-N.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to print, best first.")] = 1,
    domain: Annotated[
        str | None, typer.Option(metavar="SET", help="The data set of the images, for gates that take it.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Print the class, its probability and the experts of each image."""
    from moebius.lab.predict import predict as predict_images
    from moebius.lab.recipe.plugins import suggest_plugins

    run_plugins(plugin)
    with suggest_plugins(run):
        predictions = predict_images(run, images, top=top, domain=domain)
    table = Table("image", "class")
    table.add_column("probability", justify="right")
    table.add_column("experts (weight)")
    for prediction in predictions:
        experts = ", ".join(f"{expert} ({weight:.3f})" for expert, weight in prediction.experts)
        for place, (label, probability) in enumerate(prediction.top):
            row = (escape(str(prediction.path)), escape(label), f"{probability:.4f}", experts)
            table.add_row(*(row if place == 0 else ("", *row[1:3], "")))
    Console().print(table)
