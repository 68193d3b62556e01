"""What all commands share: the application, options, how a command ends, how a table is printed."""

import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from moebius import __version__
from moebius.kit.errors import MoebiusError
from moebius.kit.names import printable
from moebius.lab.console import PrintableConsole

app = typer.Typer(
    name="moebius",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped name, or the path of a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Values to change, such as training.epochs=2; in quotes where there are brackets."
    ),
]
Preset = Annotated[str | None, typer.Option(metavar="NAME", help="One of the recipe's presets, such as quick.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file that registers kinds. May be repeated."),
]


def end_command(note: str = "the same command begins anew") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: print errors that a user can mend and exit with 2; exit with 130 on Ctrl-C.

    Arguments:
        note: what the message after Ctrl-C says of the same command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run_command(*arguments: Any, **options: Any) -> None:
            try:
                command(*arguments, **options)
            except MoebiusError as error:
                _print_complaint("error", error.message)
                if error.fix is not None:
                    _print_complaint("  fix", error.fix)
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                # On a line of its own, below the terminal's ^C and what was being drawn.
                _print_complaint("\ninterrupted", f"{note}:\n  moebius {shlex.join(sys.argv[1:])}")
                raise typer.Exit(130) from None

        return run_command

    return decorate


def run_plugins(files: Iterable[Path] | None) -> None:
    """Run the files of `--plugin`, before anything asks for a kind."""
    from moebius.kit.plugins import load_plugin

    for file in files or ():
        load_plugin(file)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with lines between the rows; the first column is never broken."""
    table = Table(title=title, title_justify="left", show_lines=True)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    PrintableConsole().print(table)


def echo(text: object, nl: bool = True) -> None:
    """Print a text as it is, without control characters; in a line of JSON these stay what they mean."""
    typer.echo(printable(str(text)), nl=nl)


def _print_complaint(heading: str, text: str) -> None:
    # Soft wrapping leaves lines whole, so that a fix can be pasted.
    PrintableConsole(stderr=True, highlight=False).print(f"[bold red]{heading}:[/] {escape(text)}", soft_wrap=True)


def _print_version(asked: bool | None) -> None:
    if asked:
        echo(f"moebius {__version__}")
        raise typer.Exit


@app.callback()
def moebius(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True),
    ] = None,
) -> None:
    """Mixtures of experts you can build, understand and run fast."""
