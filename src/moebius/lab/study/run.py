"""Running a study from its recipe to its report."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import moebius.lab.report
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import write_json
from moebius.lab.data.split import Dataset
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.recipe.schema import Recipe
from moebius.lab.report.source import SCHEMA
from moebius.lab.report.terminal import build_results_table, describe_stages
from moebius.lab.study.cohorts import CohortMode, describe_cohorts
from moebius.lab.study.costs import measure_costs
from moebius.lab.study.display import Display
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.job_spec import load_data
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run_all import run_all
from moebius.lab.study.run_files import collect, remove_leftovers
from moebius.lab.study.stages import plan_stages


def run(
    recipe: Recipe,
    out: Path,
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    console: Console | None = None,
    stages_dir: Path | None = None,
    cohorts: CohortMode = "auto",
    plugins: Sequence[Plugin] = (),
) -> Path:
    """Train every variant at every seed, then write results and report; finished runs are kept.

    Arguments:
        recipe: what to compare.
        out: the study's folder; created, or continued.
        data_dir: folder with local copies of the data sets.
        device: "auto", "cpu" or "cuda".
        workers: how many runs to train at a time; None for one per core on a CPU, one on a GPU.
        console: for progress and results.
        stages_dir: folder of finished stages, read and written; None for `stages` in the study's folder.
        cohorts: whether runs with equal models train together: "auto" where that is faster, "never" or "always". A
            continued study keeps the cohorts that it has; this argument is for its new seeds and variants.
        plugins: from `load_plugins`: worker processes load these files, too.

    Returns:
        The path of the report.

    Raises:
        MoebiusError: of any kind; no file is written when the data or the folder cannot be used.
        TrainingError: some runs could not be finished; all others are.
    """
    console = console or Console()
    with _planned(recipe, out, console, data_dir, device, workers, stages_dir, cohorts, plugins) as (plan, data):
        unfinished = [run for run in plan.all_runs if not run.is_finished]
        if unfinished:
            # A cohort trains all its members: also seeds that an earlier command asked for and this one does not.
            runs = {run.name: run for job in plan.jobs(unfinished) for run in job.runs}
            count = sum(not run.is_finished for run in runs.values())
            total = len({run.name for run in plan.all_runs} | set(runs))
            with Display(console, total, total - count, plan.cohorts) as display:
                run_all(plan, unfinished, data, display)
            display.raise_failures()
        results = {"schema": SCHEMA, "study": recipe.name, "runs": collect(plan.runs)}
        if plan.stages:
            results["stages"] = collect(plan.stages)
        if recipe.report.one_expert is not None:
            results["costs"] = measure_costs(plan, data)
        write_json(out / "results.json", results)
        path = moebius.lab.report.build(out)
    if line := describe_stages(results.get("stages") or ()):
        console.print(line, highlight=False)
    console.print(build_results_table(results["runs"]))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return path


def plan_only(recipe: Recipe, out: Path, console: Console | None = None, **options: Any) -> list[Path]:
    """Plan a study, and write the `job.json` of every job that is not finished, for processes that do them.

    Arguments:
        recipe, out, console: as for `run`.
        options: other arguments of `run`.

    Returns:
        The folders of these jobs, stages before the runs that use them.

    Raises:
        MoebiusError: as `run` before it trains.
    """
    with _planned(recipe, out, console or Console(), **options) as (plan, _):
        jobs = plan.jobs([run for run in plan.all_runs if not run.is_finished])
        for job in jobs:
            job.write()
    return [job.folder for job in sorted(jobs, key=lambda job: job.runs[0].rows is None)]


@contextmanager
def _planned(
    recipe: Recipe,
    out: Path,
    console: Console,
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    stages_dir: Path | None = None,
    cohorts: CohortMode = "auto",
    plugins: Sequence[Plugin] = (),
) -> Iterator[tuple[Plan, Dataset]]:
    """The plan of a study and its data; the study's folder is locked in the block."""
    device = _choose_device(device)
    console.print(f"[bold]{recipe.title}[/]\n{recipe.name} → {out}", highlight=False)
    data = load_data(recipe.data.model_dump(mode="json"), data_dir)
    held_out = "" if data.validation is None else f", {len(data.validation):,} held out"
    console.print(
        f"data: {' + '.join(data.domains)}, {len(data.train):,} training rows{held_out}, {len(data.test):,} test rows",
        highlight=False,
    )
    plan_stages(recipe, data, plugins)  # its errors are raised before the folder is created
    with folder_lock(out):
        remove_leftovers(out)
        plan = make_plan(recipe, data, device, workers, out, stages_dir, cohorts, plugins, data_dir)
        unfinished = sum(not run.is_finished for run in plan.all_runs)
        stages = f"{len(plan.stages)} stages and " if plan.stages else ""
        cohorts_text = describe_cohorts(plan.cohorts, plan.runs, plan.reasons)
        console.print(
            f"{stages}{len(plan.runs)} runs, {unfinished} to do · {plan.device}, {plan.workers} at a time,"
            f" {plan.threads} thread{'s' * (plan.threads > 1)} each · {cohorts_text}",
            highlight=False,
            soft_wrap=True,
        )
        yield plan, data


def _choose_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, "--device auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("--device cuda: this machine has no GPU that torch can use", "--device cpu")
    return name
