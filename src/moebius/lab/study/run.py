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
from moebius.lab.report.terminal import results_table, stages_line
from moebius.lab.study.cohorts import Stacking, describe_cohorts
from moebius.lab.study.costs import measure_costs
from moebius.lab.study.display import Display
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.plan import SCHEMA, make_plan
from moebius.lab.study.stages import plan_stages
from moebius.lab.study.train_run import collect, remove_leftovers, result_path
from moebius.lab.study.workers import run_all


@dataclass(frozen=True)
class LoadData:
    """Loads the data of a recipe; a class so that a worker process can be handed it.

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
            find("data.sources", one["kind"])(**{key: value for key, value in one.items() if key != "kind"})
            for one in spec.pop("sets")
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
    stacking: Stacking = "auto",
    plugins: Sequence[Plugin] = (),
) -> Path:
    """Train every variant at every seed, then write results and report; finished runs are kept.

    Arguments:
        recipe: what to compare.
        out: the study's folder; made, or gone on with.
        data_dir: folder with local copies of the data sets.
        device: "auto", "cpu" or "cuda".
        workers: how many runs to train at a time; None for one per core on a CPU, one on a GPU.
        console: where progress and results are printed.
        stages_dir: where finished stages are kept and looked for; None for `stages` in the study's folder.
        stacking: whether runs of equal models train as one: "auto" where that is faster, "never" or "always". A study
            that is gone on with keeps the stacks that it has; this is for seeds and variants that it did not have.
        plugins: from `load_plugins`: worker processes load these files, too.

    Returns:
        The path of the report.

    Raises:
        MoebiusError: of any kind; nothing is left behind when the data or the folder cannot be used.
        TrainingError: runs that could not be finished; the others are.
    """
    console = console or Console()
    device = _device(device)
    load_data = LoadData(recipe.data.model_dump(mode="json"), data_dir)
    console.print(f"[bold]{recipe.title}[/]\n{recipe.name} → {out}", highlight=False)
    data = load_data()
    held = "" if data.validation is None else f", {len(data.validation):,} held out"
    console.print(
        f"data: {' + '.join(data.domains)}, {len(data.train):,} training rows{held}, {len(data.test):,} test rows",
        highlight=False,
    )
    plan_stages(recipe, data, plugins)  # what it refuses is refused before the folder is made
    with folder_lock(out):
        remove_leftovers(out)
        plan = make_plan(recipe, data, device, workers, out, stages_dir, stacking, plugins)
        todo = [one for one in plan.everything if not result_path(out, one).exists()]
        of_stages = f"{len(plan.stages)} stages and " if plan.stages else ""
        stacks = describe_cohorts(plan.stacks, plan.runs, plan.reasons)
        console.print(
            f"{of_stages}{len(plan.runs)} runs, {len(todo)} to do · {plan.device}, {plan.workers} at a time,"
            f" {plan.threads} thread{'s' * (plan.threads > 1)} each · {stacks}",
            highlight=False,
            soft_wrap=True,
        )
        failures = []
        if todo:
            # A stack is trained whole: also runs of it that were asked for once and are not any more.
            under_way = {run.name: run for job in plan.jobs(todo) for run in job}
            left = sum(not result_path(out, run).exists() for run in under_way.values())
            total = len({run.name for run in plan.everything} | set(under_way))
            with Display(console, total, total - left, plan.stacks) as display:
                hearers = (display.hear, display.finish, lambda failure: display.fail(failure.run, failure.error))
                failures = run_all(plan, todo, out, load_data, data, *hearers)
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
    if line := stages_line(results.get("stages") or ()):
        console.print(line, highlight=False)
    console.print(results_table(results["runs"]))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return path


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, "--device auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("--device cuda: this machine has no GPU that torch can use", "--device cpu")
    return name
