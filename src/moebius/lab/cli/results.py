"""`moebius report` and `predict`: the uses of a finished study."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moebius.lab.cli._app import Plugins, app, end_command, run_plugins

# Rows of a table that the terminal shows.
SHOWN_ROWS = 20


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
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Picture files, or tables (.csv, .parquet).")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to print, best first.")] = 1,
    domain: Annotated[
        str | None, typer.Option(metavar="SET", help="The data set of the rows, for gates that take it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write the predictions for rows of tables to this file.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Print the class, its probability and the experts of each image, or what is predicted for each row of a table."""
    from moebius.lab.recipe.plugins import suggest_plugins

    run_plugins(plugin)
    with suggest_plugins(run):
        is_table = all(file.suffix.lower() in (".csv", ".parquet") for file in files)
        table = _predict_tables(run, files, domain, out) if is_table else _predict_images(run, files, top, domain)
    Console().print(table)


def _predict_images(run: Path, images: list[Path], top: int, domain: str | None) -> Table:
    from moebius.lab.predict import predict as predict_images

    table = Table("image", "class")
    table.add_column("probability", justify="right")
    table.add_column("experts (weight)")
    for prediction in predict_images(run, images, top=top, domain=domain):
        experts = ", ".join(f"{expert} ({weight:.3f})" for expert, weight in prediction.experts)
        for place, (label, probability) in enumerate(prediction.top):
            row = (escape(str(prediction.path)), escape(label), f"{probability:.4f}", experts)
            table.add_row(*(row if place == 0 else ("", *row[1:3], "")))
    return table


def _predict_tables(run: Path, files: list[Path], domain: str | None, out: Path | None) -> Table:
    """The first rows' predictions; those of all rows are written to `out`."""
    import pandas as pd

    from moebius.lab.data.tables.read_file import find_file, read_csv, read_parquet_table
    from moebius.lab.predict import predict_rows

    parts = []
    for file in files:
        path = find_file(str(file), None)
        rows = read_parquet_table(path) if file.suffix.lower() == ".parquet" else read_csv(path, ",", ())
        predicted = predict_rows(run, rows, domain)
        parts.append(predicted.reset_index(names="row").assign(file=str(file)) if len(files) > 1 else predicted)
    frame = pd.concat(parts, ignore_index=len(files) > 1)
    if out is not None:
        frame.to_csv(out, index=len(files) == 1, index_label="row")
    table = Table(*([] if len(files) > 1 else ["row"]), *(escape(name) for name in frame.columns))
    for row, values in zip(frame.index, frame.head(SHOWN_ROWS).itertuples(index=False), strict=False):
        cells = [f"{value:.4g}" if isinstance(value, float) else escape(str(value)) for value in values]
        table.add_row(*([] if len(files) > 1 else [str(row)]), *cells)
    if len(frame) > SHOWN_ROWS:
        more = f"and {len(frame) - SHOWN_ROWS:,} more rows" + ("" if out else ": --out CSV writes all")
        table.caption = f"{more}" + (f", in {out}" if out else "")
    return table
