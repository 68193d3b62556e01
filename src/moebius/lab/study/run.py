"""Running a study from its recipe to its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import moebius.lab.report
from moebius.kit.errors import ArgumentError, StudyError, TrainingError
from moebius.kit.files import write_json
from moebius.kit.registry import find
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.split import Dataset
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.recipe.schema import Recipe
from moebius.lab.report.source import SCHEMA
from moebius.lab.report.terminal import build_results_table, describe_stages
from moebius.lab.study.cohorts import CohortMode, describe_cohorts
from moebius.lab.study.costs import measure_costs
from moebius.lab.study.display import Display
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.plan import make_plan
from moebius.lab.study.stages import plan_stages
from moebius.lab.study.train_run import collect, remove_leftovers, result_path
from moebius.lab.study.workers import run_all


@dataclass(frozen=True)
class LoadData:
    """Loads the data of a recipe; an object of this class can be sent to a worker process.

    Arguments:
        spec: the `data` part of a resolved recipe.
        data_dir: folder with local copies of named sets, or None.
    """

    spec: Mapping[str, Any]
    data_dir: Path | None

    def __call__(self) -> Dataset:
        """Load, from the cache where the data were decoded before."""
        spec = dict(self.spec)
        sources = [
            find("data.sources", source["kind"])(**{key: value for key, value in source.items() if key != "kind"})
            for source in spec.pop("sets")
        ]
        return load_sets(sources, data_dir=self.data_dir, **spec)


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
    device = _choose_device(device)
    load_data = LoadData(recipe.data.model_dump(mode="json"), data_dir)
    console.print(f"[bold]{recipe.title}[/]\n{recipe.name} → {out}", highlight=False)
    data = load_data()
    held_out = "" if data.validation is None else f", {len(data.validation):,} held out"
    console.print(
        f"data: {' + '.join(data.domains)}, {len(data.train):,} training rows{held_out}, {len(data.test):,} test rows",
        highlight=False,
    )
    plan_stages(recipe, data, plugins)  # its errors are raised before the folder is created
    with folder_lock(out):
        remove_leftovers(out)
        plan = make_plan(recipe, data, device, workers, out, stages_dir, cohorts, plugins)
        unfinished = [run for run in plan.all_runs if not result_path(out, run).exists()]
        stages = f"{len(plan.stages)} stages and " if plan.stages else ""
        cohorts_text = describe_cohorts(plan.cohorts, plan.runs, plan.reasons)
        console.print(
            f"{stages}{len(plan.runs)} runs, {len(unfinished)} to do · {plan.device}, {plan.workers} at a time,"
            f" {plan.threads} thread{'s' * (plan.threads > 1)} each · {cohorts_text}",
            highlight=False,
            soft_wrap=True,
        )
        failures = []
        if unfinished:
            # A cohort trains all its members: also seeds that an earlier command asked for and this one does not.
            runs = {run.name: run for job in plan.jobs(unfinished) for run in job}
            count = sum(not result_path(out, run).exists() for run in runs.values())
            total = len({run.name for run in plan.all_runs} | set(runs))
            with Display(console, total, total - count, plan.cohorts) as display:
                callbacks = (display.show, display.finish, lambda failure: display.fail(failure.run, failure.error))
                failures = run_all(plan, unfinished, out, load_data, data, *callbacks)
        if failures:
            lines = [f"{failure.run.name}: {failure.error.message}" for failure in failures]
            raise TrainingError("\n".join(lines), failures[0].error.fix)
        results = {"schema": SCHEMA, "study": recipe.name, "runs": collect(out, plan.runs)}
        if plan.stages:
            results["stages"] = collect(out, plan.stages)
        if recipe.report.one_expert is not None:
            results["costs"] = measure_costs(plan, data, out)
        write_json(out / "results.json", results)
        path = moebius.lab.report.build(out)
    if line := describe_stages(results.get("stages") or ()):
        console.print(line, highlight=False)
    console.print(build_results_table(results["runs"]))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return path


def _choose_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, "--device auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("--device cuda: this machine has no GPU that torch can use", "--device cpu")
    return name
