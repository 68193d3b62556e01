"""`moebius run`: a study from its recipe to its report."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from moebius.lab.cli._app import Overrides, Plugins, Preset, RecipeName, app, end_command


@app.command()
@end_command("finished runs are kept, and the same command goes on with what was under way")
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="Try values, such as 'training.gate.lr=[1e-4, 1e-3]' with data.validation=0.1, and choose by the "
            "held-out rows. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run each variant with seeds 0 … N−1.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The study's folder.", show_default="runs/RECIPE[-PRESET]")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with data sets in the hub's parquet layout.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    preset: Preset = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of processes that train at a time.")
    ] = None,
    cohorts: Annotated[
        Literal["auto", "never", "always"],
        typer.Option(help="Whether runs with equal models train as one cohort: auto where that is faster."),
    ] = "auto",
    stages: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of finished stages.", show_default="OUT/stages"),
    ] = None,
    plugin: Plugins = None,
    plan_only: Annotated[
        bool,
        typer.Option("--plan-only", help="Train nothing; print the folder of each job, for `moebius job FOLDER`."),
    ] = False,
) -> None:
    """Train what RECIPE compares and write the report; interrupted, the same command goes on."""
    from moebius.kit.allocator import tune_allocator

    tune_allocator()
    from moebius.lab.study.run import StudyOptions, plan
    from moebius.lab.study.run import run as run_study

    options: StudyOptions = {
        "preset": preset,
        "overrides": [*(overrides or ()), *(f"sweep.keys.{text}" for text in sweep or ())],
        "seeds": seeds,
        "data_dir": data_dir,
        "device": device,
        "workers": workers,
        "cohorts": cohorts,
        "stages": stages,
        "plugins": plugin or (),
    }
    if not plan_only:
        run_study(recipe, out, **options)
        return
    options["console"] = Console(stderr=True)
    for job in plan(recipe, out, **options):
        typer.echo(job)
