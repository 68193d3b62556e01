"""A study from its recipe to its report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from rich.console import Console

import moebius.lab.report
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import write_json
from moebius.kit.registry import did_you_mean
from moebius.lab.console import PrintableConsole
from moebius.lab.data.split import Dataset
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.plugins import load_plugins
from moebius.lab.recipe.schema import Recipe
from moebius.lab.recipe.sweep.propose import with_points
from moebius.lab.report.comparisons import compare_variants
from moebius.lab.report.mixed_versions import describe_mixing
from moebius.lab.report.source import SCHEMA, read_study
from moebius.lab.report.terminal import build_results_table, describe_family, describe_stages
from moebius.lab.study.cohorts import CohortMode, describe_cohorts
from moebius.lab.study.command_words import command_words
from moebius.lab.study.costs import measure_costs
from moebius.lab.study.display import Display
from moebius.lab.study.executor import Executor
from moebius.lab.study.executors._choice import ExecutorLike, as_executor
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.job_spec import load_data
from moebius.lab.study.partner import lead_launched
from moebius.lab.study.partners import check_not_launched
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run_all import run_all
from moebius.lab.study.run_files import collect, has_diverged, remove_leftovers
from moebius.lab.study.stages import plan_stages
from moebius.lab.study.sweep import choose_runs, first_points, next_points
from moebius.lab.training.process_group import check_gpus, launched_processes
from moebius.tasks._choice import as_task

# Other studies may be writing into a folder of stages; a temporary file of this age is nobody's any more.
OLD_SECONDS = 3600.0
RecipeLike = Recipe | Mapping[str, Any] | str | Path


class StudyOptions(TypedDict, total=False):
    """The options of `run` and `plan`, which describes them."""

    preset: str | None
    overrides: Sequence[str]
    seeds: int | None
    data_dir: Path | str | None
    device: str
    workers: int | None
    cohorts: CohortMode
    stages: Path | str | None
    plugins: Sequence[Path | str]
    executor: ExecutorLike
    nproc: int | None
    mixed: bool
    console: Console | None


@dataclass(frozen=True)
class _Study:
    recipe: Recipe
    folder: Path
    plan: Plan
    data: Dataset
    console: Console
    executor: Executor
    most: int | None
    make_plan: Callable[[Recipe], Plan]


def run(recipe: RecipeLike, out: Path | str | None = None, **options: Unpack[StudyOptions]) -> Path:
    """Train what a recipe compares and write results and report, as `moebius run` does; also called `mb.lab.run`.

    Finished runs are kept; interrupted, the same call goes on.

    Arguments:
        recipe: a mapping with the keys of a recipe's file, a shipped name, the path of a YAML file, or a
            loaded recipe, which has its own preset, overrides and seeds.
        out: the study's folder, created or continued; None for runs/NAME, or runs/NAME-PRESET.
        options: `preset`, `overrides` and `seeds` as for `moebius.lab.recipe.load_recipe`; `data_dir`, a folder with
            local copies of the data sets; `device`, "auto", "cpu" or "cuda"; `workers`, how many runs to train at a
            time, None for one per core on a CPU and one on a GPU; `cohorts`, whether runs with equal models train
            together, "auto" where that is faster, "never" or "always" (a continued study keeps the cohorts that it
            has); `stages`, a folder of finished stages, read and written, None for `stages` in the study's folder;
            `plugins`, Python files that register kinds, for the worker processes too; `executor`, what does the jobs:
            "local", or a kind of the room `study.executors` with its keywords, as {"kind": "ray", "cpus": 2}, of which
            `workers` then limits the jobs at a time; `nproc`, how many processes train each run together, 1 unless
            given (under `torchrun` all that it has started); `mixed`, whether runs that are in the middle of their
            training may go on with another torch or moebius, which may give other bits; `console`, for progress and
            results.

    Returns:
        The study's folder: report.html, results.json, and a folder for each run.

    Raises:
        RecipeError: the recipe has problems; the error lists all of them.
        TrainingError: some runs could not be finished; all others are.
        MoebiusError: of any other kind; no file is written when the data or the folder cannot be used.

    Example:
        >>> import moebius as mb
        >>> folder = mb.lab.run("quickstart", preset="quick")  # doctest: +SKIP
    """
    count = launched_processes()
    if count == 1:
        return _run(recipe, out, options)
    return lead_launched(lambda: _run(recipe, out, _launched_options(options, count)))


def _launched_options(options: StudyOptions, count: int) -> StudyOptions:
    """The options of a study whose processes a launcher has started: all of them train one run at a time."""
    for name, values, fix in (
        ("nproc", (None, count), f"torchrun --nproc-per-node {options.get('nproc')}"),
        ("workers", (None, 1), "moebius run RECIPE --workers N --nproc N"),
        (
            "executor",
            ("local", {"kind": "local"}),
            "moebius run RECIPE --executor NAME --nproc N",
        ),
    ):
        if options.get(name, values[0]) not in values:
            rule = f"does not fit the {count} processes that a launcher (torchrun) has started for one run at a time"
            raise ArgumentError(name, rule, options.get(name), fix)
    return {**options, "nproc": count, "workers": 1}


def _run(recipe: RecipeLike, out: Path | str | None, options: StudyOptions) -> Path:
    with _planned(recipe, out, options) as study:
        _train(study)
        while study.recipe.sweep is not None and (points := next_points(study.recipe, study.plan)):
            proposed = with_points(study.recipe, points)
            study = replace(study, recipe=proposed, plan=study.make_plan(proposed))
            study.console.print(f"sweep: {len(points)} points proposed", highlight=False)
            _train(study)
        plan, console, recipe = study.plan, study.console, study.recipe
        results: dict[str, Any] = {"schema": SCHEMA, "study": recipe.name, "runs": collect(plan.runs)}
        if plan.stages:
            results["stages"] = collect(plan.stages)
        runs, lines = results["runs"], ()
        if recipe.sweep is not None:
            choice = choose_runs(recipe, study.folder, runs)
            results["chosen"], runs, lines = choice.names, choice.runs, choice.lines
        if recipe.report.one_expert is not None and (plan.device == "cpu" or torch.cuda.is_available()):
            results["costs"] = measure_costs(
                plan, study.data, {run.get("point", run["variant"]): run["variant"] for run in runs}
            )
        write_json(study.folder / "results.json", results)
        family = compare_variants(read_study(study.folder))
        if family is not None:
            write_json(study.folder / "results.json", {**results, "comparisons": family.to_dict()})
        path = moebius.lab.report.build(study.folder)
    score = as_task(recipe.task).score_name
    if line := describe_stages(results.get("stages") or (), score):
        console.print(line, highlight=False)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if line := describe_mixing([*results["runs"], *results.get("stages", ())]):
        console.print(line, highlight=False, soft_wrap=True)
    chosen = None if family is None else family.chosen
    console.print(build_results_table(runs, score=score, chosen=chosen))
    for line in describe_family(family):
        console.print(line, highlight=False, markup=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return study.folder


def _train(study: _Study) -> None:
    """Train what is not finished; a point of a sweep whose loss is no finite number has ended, too."""
    plan = study.plan
    points = {variant.name for variant in study.recipe.variants if variant.point is not None}
    unfinished = [
        run for run in plan.all_runs if not (run.is_finished or (run.variant in points and has_diverged(run)))
    ]
    if not unfinished:
        return
    # A cohort trains all its members: also seeds that an earlier command asked for and this one does not.
    runs = {run.name: run for job in plan.jobs(unfinished) for run in job.runs}
    count = sum(not run.is_finished for run in runs.values())
    total = len({run.name for run in plan.all_runs} | set(runs))
    with Display(study.console, total, total - count, plan.cohorts) as display:
        run_all(plan, unfinished, study.data, display, study.executor, study.most)
    display.raise_failures({run.name for run in runs.values() if run.variant in points and has_diverged(run)})


def plan(recipe: RecipeLike, out: Path | str | None = None, **options: Unpack[StudyOptions]) -> list[Path]:
    """Plan a study, and write the `job.json` of every job that is not finished, for processes that do them.

    Arguments:
        recipe, out, options: as for `run`.

    Returns:
        The folders of these jobs, stages before the runs that use them: `moebius job FOLDER` does one.

    Raises:
        MoebiusError: as `run` before it trains.
    """
    check_not_launched("moebius run RECIPE --plan-only --nproc N    # without torchrun")
    with _planned(recipe, out, options) as study:
        if study.recipe.sweep is not None and study.recipe.sweep.method == "optuna":
            rule = "optuna proposes points from the results of others, so that no plan of them all can be made"
            raise StudyError(f"--plan-only: {rule}", "sweep.method=random")
        jobs = study.plan.jobs([run for run in study.plan.all_runs if not run.is_finished])
        for job in jobs:
            job.write()
    return [job.folder for job in sorted(jobs, key=lambda job: job.runs[0].rows is None)]


@contextmanager
def _planned(recipe: RecipeLike, out: Path | str | None, options: StudyOptions) -> Iterator[_Study]:
    """The study with its plan and its data; its folder is locked in the block."""
    names = StudyOptions.__annotations__
    for name in options.keys() - names:
        fix = f'{did_you_mean(name, names)}    # keys of a recipe: overrides=["training.epochs=2"]'
        raise ArgumentError(name, f"needs one of the options {', '.join(names)}", name, fix)
    plugins, preset = load_plugins(options.get("plugins", ())), options.get("preset")
    command = command_words(recipe, options)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, options.get("overrides", ()), preset, options.get("seeds"))
    folder = Path(out or Path("runs") / (recipe.name if preset is None else f"{recipe.name}-{preset}"))
    data_dir, stages_dir = (
        None if path is None else Path(path) for path in (options.get("data_dir"), options.get("stages"))
    )
    executor, nproc = as_executor(options.get("executor", "local")), options.get("nproc")
    nproc = 1 if nproc is None else nproc
    if nproc < 1:
        raise ArgumentError("nproc", "needs a number of processes", nproc, "--nproc 2")
    console, device = (
        options.get("console") or PrintableConsole(),
        _choose_device(options.get("device", "auto"), executor),
    )
    if device == "cuda" and nproc > 1 and launched_processes() == 1 and not executor.place.has_nodes:
        check_gpus(nproc)
    console.print(f"[bold]{recipe.title}[/]\n{recipe.name} → {folder}", highlight=False)
    data = load_data(recipe.data.model_dump(mode="json"), data_dir, recipe.task)
    held_out = "" if data.validation is None else f", {len(data.validation):,} held out"
    console.print(
        f"data: {' + '.join(data.domains)}, {len(data.train):,} training rows{held_out}, {len(data.test):,} test rows",
        highlight=False,
    )
    if data.columns is not None:
        console.print(f"columns: {data.columns.describe()}", highlight=False, soft_wrap=True)
    plan_stages(recipe, data, plugins)  # its errors are raised before the folder is created
    with folder_lock(folder):
        remove_leftovers(folder)
        workers, cohorts = options.get("workers"), options.get("cohorts", "auto")
        mixed = options.get("mixed", False)

        def plan_recipe(recipe: Recipe) -> Plan:
            options = (device, workers, folder, stages_dir, cohorts, plugins, data_dir, command, executor.place, nproc)
            return replace(make_plan(recipe, data, *options), mixed=mixed)

        recipe = first_points(recipe, folder)
        plan = plan_recipe(recipe)
        for place in (stage.folder / "outputs" for stage in plan.stages):
            if not place.is_symlink():
                remove_leftovers(place, OLD_SECONDS)
        unfinished = sum(not run.is_finished for run in plan.all_runs)
        stages = f"{len(plan.stages)} stages and " if plan.stages else ""
        cohorts_text = describe_cohorts(plan.cohorts, plan.runs, plan.reasons)
        place = f"jobs by {executor.place.text}" if executor.place.text else f"{plan.workers} at a time"
        place += f", {nproc} processes each" if nproc > 1 else ""
        console.print(
            f"{stages}{len(plan.runs)} runs, {unfinished} to do · {plan.device}, {place},"
            f" {plan.threads} thread{'s' * (plan.threads > 1)} each · {cohorts_text}",
            highlight=False,
            soft_wrap=True,
        )
        try:
            yield _Study(recipe, folder, plan, data, console, executor, workers, plan_recipe)
        finally:
            executor.close()


def _choose_device(name: str, executor: Executor) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() or executor.gpus else "cpu"
    if name not in ("cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, "--device auto")
    if name == "cuda" and not (torch.cuda.is_available() or executor.place.has_nodes):
        raise StudyError("--device cuda: this machine has no GPU that torch can use", "--device cpu")
    return name
