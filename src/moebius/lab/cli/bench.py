"""`moebius bench`: times sparse layers beside dense ones."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from moebius.lab.cli._app import app, end_command
from moebius.lab.console import PrintableConsole


@app.command()
@end_command()
def bench(
    dim: Annotated[int, typer.Option(metavar="D", help="Width of a row.")] = 512,
    hidden: Annotated[int, typer.Option(metavar="H", help="Width inside each expert.")] = 2048,
    experts: Annotated[int, typer.Option(metavar="E", help="Number of experts.")] = 8,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Experts that a row goes through.")] = 2,
    rows: Annotated[int, typer.Option(metavar="T", help="Rows in a call.")] = 4096,
    activation: Annotated[str, typer.Option(help="gelu, relu2, swiglu or geglu.")] = "gelu",
    bias: Annotated[bool, typer.Option(help="Whether the experts have biases.")] = True,
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of weights and rows.")] = "fp32",
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of times that each is measured, in turn.")
    ] = 7,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of PyTorch.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    untuned: Annotated[bool, typer.Option("--untuned", help="Leave the memory allocator as it is.")] = False,
    backward: Annotated[bool, typer.Option("--backward/--forward-only", help="Whether to measure training.")] = True,
    json: Annotated[Path | None, typer.Option(metavar="PATH", help="Also write the figures there.")] = None,
) -> None:
    """Time the executions of a sparse layer beside dense layers, and print whether it pays.

    One dense layer does as much work for a row as the sparse layer, another one has as many parameters.
    """
    from moebius.lab.bench import command

    shapes = {"dim": dim, "hidden": hidden, "experts": experts, "k": k, "rows": rows}
    layer = {**shapes, "activation": activation, "bias": bias, "dtype": dtype}
    command.run(
        layer, device, rounds, threads, tuned=not untuned, backward=backward, json=json, console=PrintableConsole()
    )
