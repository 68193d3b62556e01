"""The command `moebius`: parse, call, print. What takes long to import is imported inside the commands."""

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moebius import __version__
from moebius.kit.errors import MoebiusError

app = typer.Typer(
    name="moebius",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped name, or the path of a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to change, such as training.epochs=2.")
]
Preset = Annotated[str | None, typer.Option(metavar="NAME", help="One of the recipe's presets, such as quick.")]


def main() -> None:
    """Run the command `moebius` with this process's arguments."""
    try:
        app()
    except KeyboardInterrupt:
        # Ctrl-C before a command had begun.
        sys.exit(130)


def _ending(note: str = "the same command begins anew") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How commands end: errors that a user can mend are printed and exit with 2, Ctrl-C exits with 130."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def ended(*arguments: Any, **options: Any) -> None:
            try:
                command(*arguments, **options)
            except MoebiusError as error:
                _complain("error", error.message)
                if error.fix is not None:
                    _complain("  fix", error.fix)
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                # On a line of its own, below the terminal's ^C and what was being drawn.
                _complain("\ninterrupted", f"{note}:\n  moebius {shlex.join(sys.argv[1:])}")
                raise typer.Exit(130) from None

        return ended

    return decorate


def _complain(what: str, text: str) -> None:
    # Soft wrapping leaves lines whole, so that a fix can be pasted.
    Console(stderr=True, highlight=False).print(f"[bold red]{what}:[/] {escape(text)}", soft_wrap=True)


def _version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"moebius {__version__}")
        raise typer.Exit


@app.callback()
def moebius(
    version: Annotated[
        bool | None, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = None,
) -> None:
    """Mixtures of experts you can build, understand and run fast."""


@app.command()
@_ending("finished runs are kept, and the same command goes on with what was under way")
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run each variant with seeds 0 … N−1.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The study's folder.", show_default="runs/RECIPE[-PRESET]")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with data sets in the hub's parquet layout.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    preset: Preset = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes side by side.")] = None,
    cohorts: Annotated[
        Literal["auto", "never", "always"],
        typer.Option(help="Whether runs with equal models train together: auto where that is faster."),
    ] = "auto",
    stages: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where finished stages are kept and looked for.", show_default="OUT/stages"),
    ] = None,
) -> None:
    """Train what RECIPE compares and write the report; interrupted, the same command goes on."""
    from moebius.kit.allocator import tune_allocator

    tune_allocator()
    from moebius.lab.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), preset, seeds)
    from moebius.lab import study

    folder = out or Path("runs") / (loaded.name if preset is None else f"{loaded.name}-{preset}")
    given = {"data_dir": data_dir, "device": device, "workers": workers, "stages_dir": stages, "cohorts": cohorts}
    study.run(loaded, out=folder, **given)


@app.command()
@_ending()
def recipes() -> None:
    """List the recipes that come with moebius."""
    from moebius.lab.recipe.shipped import find_recipe, read_recipe, shipped_recipes

    table = Table(title="moebius run RECIPE", title_justify="left", show_lines=True)
    for heading in ("recipe", "question", "variants", "presets", "time"):
        table.add_column(heading, overflow="fold")
    for name in shipped_recipes():
        raw = read_recipe(find_recipe(name), f"{name}.yaml")
        table.add_row(
            name, raw["title"], ", ".join(raw["variants"]), ", ".join(raw.get("presets", ())), raw.get("time", "")
        )
    Console().print(table)


@app.command(name="list")
@_ending()
def list_kinds(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="Such as gates, routers, losses, experts.")],
) -> None:
    """List the kinds of a room: what a recipe may name there, each with its source."""
    from moebius.kit.registry import catalogue

    table = Table(title=f"{{kind: …}} in room {room}", title_justify="left", show_lines=True)
    for heading in ("kind", "what it does", "source"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "kind")
    for kind, does, source in catalogue(room):
        table.add_row(kind, escape(does), escape(source))
    Console().print(table)


@app.command()
@_ending()
def show(recipe: RecipeName, overrides: Overrides = None, preset: Preset = None) -> None:
    """Print RECIPE with all values filled in, and how large its models are.

    The YAML goes to standard output and is a recipe again: `moebius show RECIPE > mine.yaml`. The table goes to
    standard error.
    """
    from moebius.lab.recipe.load import load_recipe
    from moebius.lab.recipe.sizes import sizes
    from moebius.lab.recipe.text import write_yaml

    loaded = load_recipe(recipe, overrides or (), preset)
    typer.echo(write_yaml(loaded.resolved()))
    table = Table("variant", title=f"{loaded.name}, with 10 classes assumed for each data set", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds per image", justify="right")
    for size in sizes(loaded):
        table.add_row(size.variant, f"{size.parameters:,}", f"{size.multiply_adds:,}")
    Console(stderr=True).print(table)


@app.command()
@_ending("the same command writes the report anew")
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, as given to --out.")]) -> None:
    """Write a study's report, tables and figures anew."""
    from moebius.lab import report as room

    typer.echo(room.build(folder))


@app.command()
@_ending()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: DIR/VARIANT/seed-N.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to print, best first.")] = 1,
    domain: Annotated[
        str | None, typer.Option(metavar="SET", help="The data set that the images are from, for gates that are told.")
    ] = None,
) -> None:
    """Print class, probability and the experts used for each image."""
    from moebius.lab import predict as room

    table = Table("image", "class")
    table.add_column("probability", justify="right")
    table.add_column("experts (weight)")
    for prediction in room.predict(run, images, top=top, domain=domain):
        experts = ", ".join(f"{expert} ({weight:.3f})" for expert, weight in prediction.experts)
        for place, (label, probability) in enumerate(prediction.top):
            row = (escape(str(prediction.path)), escape(label), f"{probability:.4f}", experts)
            table.add_row(*(row if place == 0 else ("", *row[1:3], "")))
    Console().print(table)


@app.command()
@_ending()
def bench(
    dim: Annotated[int, typer.Option(metavar="D", help="Width of a row.")] = 512,
    hidden: Annotated[int, typer.Option(metavar="H", help="Width inside each expert.")] = 2048,
    experts: Annotated[int, typer.Option(metavar="E", help="How many.")] = 8,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Experts that a row goes through.")] = 2,
    rows: Annotated[int, typer.Option(metavar="T", help="Rows in a call.")] = 4096,
    activation: Annotated[str, typer.Option(help="gelu, relu2, swiglu or geglu.")] = "gelu",
    bias: Annotated[bool, typer.Option(help="Whether the experts have biases.")] = True,
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of weights and rows.")] = "fp32",
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Everything in turn, so often.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of PyTorch.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    untuned: Annotated[bool, typer.Option("--untuned", help="Leave the allocator as it comes.")] = False,
    backward: Annotated[bool, typer.Option("--backward/--forward-only", help="Whether to measure training.")] = True,
    json: Annotated[Path | None, typer.Option(metavar="PATH", help="Also write the figures there.")] = None,
) -> None:
    """Time a sparse layer's executions beside dense layers, and say whether it pays.

    Beside each stand a dense layer with equal active work and one with equal parameters.
    """
    from moebius.lab.bench import command

    shapes = {"dim": dim, "hidden": hidden, "experts": experts, "k": k, "rows": rows}
    layer = {**shapes, "activation": activation, "bias": bias, "dtype": dtype}
    command.run(layer, device, rounds, threads, tuned=not untuned, backward=backward, json=json, console=Console())
