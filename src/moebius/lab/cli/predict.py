"""`moebius predict`: what a run says of pictures, rows of tables and rows of its own data, and why."""

import json as json_text
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from moebius.lab.cli._app import Plugins, app, echo, end_command, run_plugins
from moebius.lab.console import PrintableConsole

if TYPE_CHECKING:
    from moebius.lab.predict import ExplainedRows, Subject

# Rows of a table, and blocks, that the terminal shows.
SHOWN_ROWS = 20


@app.command()
@end_command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: DIR/VARIANT/seed-N.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Pictures, folders of pictures, or tables (.csv, .parquet)."),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(metavar="SPLIT:N", help="A row of the run's own data, such as test:12. May be repeated."),
    ] = None,
    why: Annotated[
        bool | None,
        typer.Option("--why/--table", help="A block that explains each row, or a table; by default a block for one."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each row.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="The class of the pictures; may be repeated, once for each."),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="The name of the folder that a picture is in is its class.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to print, best first.")] = 1,
    domain: Annotated[
        str | None, typer.Option(metavar="SET", help="The data set of the rows, for gates that take it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write the predictions for rows of tables to this file.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with local data sets, for --row.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Print what RUN says of each picture or row, through which experts, and what others would have said."""
    from moebius.lab.cli._prediction import ask
    from moebius.lab.predict import Subject
    from moebius.lab.recipe.plugins import suggest_plugins
    from moebius.lab.report.frames import for_spreadsheets

    run_plugins(plugin)
    with suggest_plugins(run):
        subject = Subject.of(run)
        asked = ask(subject, files or [], row or [], label or [], labels, domain, data_dir)
        count = len(asked.names)
        as_blocks = why if why is not None else count == 1
        explains = json or as_blocks or asked.label is not None
        rows = asked.explain(subject, max(top, 3) if as_blocks else top, None if explains else False)
    if out is not None and asked.index is not None:
        for_spreadsheets(_frame(subject, rows, asked.index)).to_csv(out, index_label="row")
    if json:
        for explanation in rows:
            echo(json_text.dumps(explanation.to_dict(), ensure_ascii=False))
    elif as_blocks:
        _print_blocks(rows)
    else:
        console = PrintableConsole()
        console.print(_table(subject, rows, asked.kind, console.width))


def _print_blocks(rows: "ExplainedRows") -> None:
    console = PrintableConsole(highlight=False)
    for place in range(min(len(rows), SHOWN_ROWS)):
        console.print(escape(rows[place].text(console.width)) + "\n" * (len(rows) > 1), soft_wrap=True)
    if len(rows) > SHOWN_ROWS:
        console.print(f"and {len(rows) - SHOWN_ROWS:,} more rows: --json explains all")


def _frame(subject: "Subject", rows: "ExplainedRows", index: Any) -> Any:
    from moebius.lab.predict.rows import frame_of

    passes = rows.passes
    return frame_of(subject.task, passes.targets, passes.output, passes.log, index)


def _table(subject: "Subject", rows: "ExplainedRows", kind: str, width: int) -> Table:
    """A line for each of the first rows, with the columns that fit the terminal."""
    from moebius.lab.predict.wording import label_text, loss_text, route_text, runner_up_text

    shown = [rows[place] for place in range(min(len(rows), SHOWN_ROWS))]
    names, cells = _answer_cells(subject, rows, shown)
    columns = {kind: [[explanation.row] for explanation in shown]}
    columns |= {name: [[line[place] for line in of_row] for of_row in cells] for place, name in enumerate(names)}
    columns["experts (weight)"] = [[route_text(explanation, 2 + width // 100)] for explanation in shown]
    columns["runner-up"] = [[runner_up_text(explanation)] for explanation in shown]
    if rows.labels is not None:
        columns["label"] = [["" if each.label is None else label_text(each.label)] for each in shown]
        columns["regret"] = [[loss_text(_first_regret(explanation))] for explanation in shown]
    left_out = _drop_columns(columns, ["label", *(name for name in names if " " in name), "runner-up"], width)
    table = Table()
    for name, values in columns.items():
        is_number = all(_is_number(cell) for lines in values for cell in lines)
        table.add_column(escape(name), justify="right" if is_number else "left", overflow="fold")
    for lines in zip(*columns.values(), strict=True):
        for place in range(max(map(len, lines))):
            table.add_row(*(escape(of_column[place]) if place < len(of_column) else "" for of_column in lines))
    table.caption = " ".join(_captions(rows, left_out)) or None
    table.caption_justify = "left"
    return table


def _first_regret(explanation: Any) -> float | None:
    return next((gate.regret for gate in explanation.gates if gate.inside is None), None)


def _drop_columns(columns: dict[str, list[list[str]]], dispensable: list[str], width: int) -> list[str]:
    """Remove columns, in this order, until a line has no more than `width` characters; the names of the removed."""
    removed = []
    for name in dispensable:
        widths = [
            max(len(heading), *(len(cell) for lines in values for cell in lines)) for heading, values in columns.items()
        ]
        if sum(widths) + 3 * len(widths) + 1 <= width or name not in columns:
            continue
        del columns[name]
        removed.append(name)
    return removed


def _captions(rows: "ExplainedRows", left_out: list[str]) -> list[str]:
    captions = []
    if len(rows) > SHOWN_ROWS:
        captions.append(f"and {len(rows) - SHOWN_ROWS:,} more rows: --out CSV writes all, --json explains all.")
    outer = [table.place.name for table in rows.passes.gates if table.place.inside is None]
    if len(outer) > 1:
        captions.append(f"Experts, runner-up and regret are of {outer[0]}, the first of {len(outer)} gates.")
    if left_out:
        captions.append(f"Left out at this width: {', '.join(left_out)}.")
    return captions


def _answer_cells(
    subject: "Subject", rows: "ExplainedRows", shown: Sequence[Any]
) -> tuple[list[str], list[list[list[str]]]]:
    """Headings and, for each row, the lines of cells with what the model says; several for several classes."""
    from moebius.lab.predict.wording import number

    if rows.top is not None and not (subject.targets and "columns" in subject.header):
        lines = [[[name, f"{value:.4f}"] for name, value in explanation.top] for explanation in shown]
        return ["class", "probability"], lines
    columns: dict[tuple[str, str], None] = {}
    for explanation in shown:
        for name, values in explanation.answer.items():
            columns |= dict.fromkeys((name, key) for key in values if key != "shares")
    headings = [name if key == "prediction" else f"{name} {key}" for name, key in columns]
    lines = []
    for explanation in shown:
        values = [explanation.answer[name].get(key, "") for name, key in columns]
        lines.append([[number(value) if isinstance(value, float) else str(value) for value in values]])
    return headings, lines


def _is_number(cell: str) -> bool:
    return not cell.strip("+−-.0123456789e")
