"""`moebius run`: a study from its recipe to its report."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moebius.kit.errors import ArgumentError
from moebius.lab.cli._app import Overrides, Plugins, Preset, RecipeName, app, echo, end_command
from moebius.lab.console import PrintableConsole

PANEL = "Other machines"


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
    nproc: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of processes of this machine that train each run together; on GPUs one for each.",
            show_default="1",
        ),
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
    allow_mixed: Annotated[
        bool,
        typer.Option("--allow-mixed", help="Go on with runs that another torch or moebius began; bits may differ."),
    ] = False,
    plan_only: Annotated[
        bool,
        typer.Option("--plan-only", help="Train nothing; print the folder of each job, for `moebius job FOLDER`."),
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What does the jobs: local, ray, submitit (SLURM), or one of another distribution. "
            "--workers then says how many are submitted at a time.",
            rich_help_panel=PANEL,
        ),
    ] = "local",
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Cores of each job; also its threads in a study that begins.",
            show_default="the study's threads",
            rich_help_panel=PANEL,
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="GPUs of each job; on Ray also 0.5.",
            show_default="1 with --device cuda",
            rich_help_panel=PANEL,
        ),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="How often a job whose node dies, or whose time is up, goes on elsewhere.",
            show_default="3",
            rich_help_panel=PANEL,
        ),
    ] = None,
    shared: Annotated[
        bool | None,
        typer.Option(
            "--shared/--no-shared",
            help="Ray: whether all nodes see the study's folder; else files travel, and come back.",
            show_default="shared",
            rich_help_panel=PANEL,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Ray: the head of the cluster.",
            show_default="a cluster on this machine",
            rich_help_panel=PANEL,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="submitit: slurm, local (processes of this machine), auto.",
            show_default="auto",
            rich_help_panel=PANEL,
        ),
    ] = None,
    time: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="MINUTES",
            help="submitit: until SLURM ends a job, which goes on in a new one.",
            show_default="240",
            rich_help_panel=PANEL,
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="submitit: of SLURM.", rich_help_panel=PANEL)
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="submitit: an option of sbatch, such as account=lab. May be repeated.",
            rich_help_panel=PANEL,
        ),
    ] = None,
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
        "nproc": nproc,
        "cohorts": cohorts,
        "stages": stages,
        "plugins": plugin or (),
        "mixed": allow_mixed,
        "executor": {
            "kind": executor,
            **_given(cpus=cpus, gpus=gpus, retries=retries, address=address, shared=shared),
            **_given(cluster=cluster, time=time, partition=partition, slurm=_pairs(slurm)),
        },
    }
    if not plan_only:
        run_study(recipe, out, **options)
        return
    options["console"] = PrintableConsole(stderr=True)
    for job in plan(recipe, out, **options):
        echo(job)


def _given(**options: Any) -> dict[str, Any]:
    """The options that the command names."""
    return {name: value for name, value in options.items() if value is not None}


def _pairs(texts: list[str] | None) -> dict[str, str] | None:
    pairs = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise ArgumentError("--slurm", "needs KEY=VALUE", text, "--slurm account=lab")
        pairs[key.strip().lstrip("-")] = value.strip()
    return pairs or None
