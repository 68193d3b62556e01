"""The speed of cohorts (runs that train together) and of runs that train alone, and a study run in three ways.

    .venv/bin/python benchmarks/stacked_runs.py [--device cuda] [--json PATH]
    .venv/bin/python benchmarks/stacked_runs.py --study --data-dir ../shared/data [training.epochs=2 …]

Without `--study`, the benchmark measures the steps a second of cohorts of 1, 2, 5 and 10 runs and of a run alone, for
the four models of study 1 and two of study 2, with batches of 128 random grey images of 32×32 pixels. A step of a
cohort of five counts as five steps. The candidates run in turn in one process; figures are medians over rounds, and
ratios are taken within rounds and shown with their smallest and largest value. It also measures the largest difference
between the gradients of the first step in a cohort and alone, as a share of the largest gradient. Where a million
values enter a relu, one of them may be within rounding of 0, and the difference is then as large as the gradient of one
row.

With `--study`, it runs `moebius run linear-experts --seeds 5` with one run after another (one process, all threads),
with one process per core, and with cohorts. The figures are wall times of the whole commands, and the mean test
accuracy of every variant with its 95 % interval over the seeds. KEY=VALUE arguments change the recipe.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _compare import Measurement, comparison_rows, make_parser, measure_rates, print_rows, processor_name, write_rows
from steps import BATCH, STUDY_1, STUDY_2, random_data

from moebius.kit.allocator import tune_allocator
from moebius.lab.data.split import Dataset
from moebius.lab.model.build import build_model
from moebius.lab.statistics.interval import interval
from moebius.lab.training.cohort import CohortMember, CohortTrainer
from moebius.lab.training.cohort_obstacle import RowWork, cohort_obstacle
from moebius.lab.training.loop import Trainer
from moebius.lab.training.settings import Settings

GATE = {"kind": "conv", "filters": [64, 64], "hidden": [64], "activation": "none"}
MODELS = {
    "1 single": {**STUDY_1, "gate": {"kind": "uniform"}, "experts": {"kind": "linear", "count": 1}},
    "1 predesigned": {**STUDY_1, "gate": {"kind": "domain"}, "router": {"kind": "argmax"}},
    "1 linear": STUDY_1,
    "1 hidden": {**STUDY_1, "gate": {"kind": "mlp", "hidden": [64]}},
    "2 dense": STUDY_2,
    "2 conv": {**STUDY_2, "gate": GATE},
}
# Models between the two studies in size, where arithmetic begins to take longer than overhead.
BETWEEN = {
    f"between {width}": {
        **STUDY_1,
        "gate": {"kind": "mlp", "hidden": [64]},
        "experts": {"kind": "mlp", "count": 2, "hidden": [width]},
    }
    for width in (32, 128, 512)
}
WAYS = {
    "one after another": ["--workers", "1", "--cohorts", "never"],
    "one process a core": ["--cohorts", "never"],
    "cohorts": ["--cohorts", "auto"],
}


def make_settings() -> Settings:
    plain = {"epochs": 1, "batch_size": BATCH, "optimizer": {"kind": "adam", "lr": 1e-3}, "precision": "fp32"}
    return Settings.from_plain(plain)


def make_single_epoch(model: dict, data: Dataset, device: str) -> Callable[[], int]:
    folder = Path(tempfile.mkdtemp())
    trainer = Trainer(lambda: build_model(model, data.facts), data, make_settings(), 0, folder, device)

    def epoch() -> int:
        trainer.progress.batch = 0
        trainer.train_epoch()
        return trainer.steps_per_epoch

    return epoch


def make_members(model: dict, data: Dataset, runs: int, folder: Path) -> list[CohortMember]:
    def build() -> Any:
        return build_model(model, data.facts, stacked=False)

    return [CohortMember(build, make_settings(), seed, folder / str(seed)) for seed in range(runs)]


def make_cohort_epoch(model: dict, data: Dataset, runs: int, device: str) -> Callable[[], int]:
    folder = Path(tempfile.mkdtemp())
    trainer = CohortTrainer(make_members(model, data, runs, folder), data, folder / "cohort.safetensors", device)

    def epoch() -> int:
        for account in trainer.accounts:
            account.progress.batch = 0
        trainer.train_epoch()
        return runs * trainer.steps_per_epoch

    return epoch


def measure_gradient_difference(model: dict, data: Dataset, runs: int, device: str) -> float:
    """Largest difference between the first step's gradients in a cohort and alone, as a share of the largest one."""
    first_batch = replace(data, train=data.train.take(torch.arange(BATCH)))
    folder = Path(tempfile.mkdtemp())
    members = make_members(model, first_batch, runs, folder)
    cohort = CohortTrainer(members, first_batch, folder / "cohort.safetensors", device)
    cohort.train_epoch()
    difference = largest = 0.0
    for run, member in enumerate(members):
        trainer = Trainer(member.build, first_batch, member.settings, member.seed, folder / f"alone-{run}", device)
        trainer.train_epoch()
        for parameter, leaf in zip(trainer.parameters, cohort.leaves, strict=True):
            if parameter.grad is not None and leaf.grad is not None:
                difference = max(difference, (parameter.grad - leaf.grad[run]).abs().max().item())
                largest = max(largest, parameter.grad.abs().max().item())
    return difference / largest


def measure(name: str, model: dict, options) -> list[Measurement]:
    steps = options.steps or (8 if name.startswith("2") and options.device == "cpu" else 100)
    data = random_data(BATCH * steps)
    work = RowWork.of(lambda: build_model(model, data.facts, stacked=False), data).multiply_adds
    obstacle = cohort_obstacle(lambda: build_model(model, data.facts, stacked=False), make_settings(), data)
    prefix = f"{name}, "
    reason = f"; it {obstacle}" if obstacle else ""
    print(f"{name}: {work:,} multiply-adds an image, {work * BATCH:,} a step{reason}")
    if obstacle is not None:
        return []
    candidates = {"alone": make_single_epoch(model, data, options.device)}
    candidates |= {f"cohort of {runs}": make_cohort_epoch(model, data, runs, options.device) for runs in options.runs}
    pairs = [(f"cohort of {runs}", "alone") for runs in options.runs]
    rows = comparison_rows(measure_rates(candidates, options.rounds), pairs, "steps/s", prefix)
    largest = max(options.runs)
    share = measure_gradient_difference(model, data, largest, options.device)
    print(f"{prefix}first gradients of {largest} runs differ by {share:.1e} of the largest")
    return [
        *rows,
        Measurement(f"{prefix}first gradients of {largest} runs", share, "of largest", None, None, (share, share)),
    ]


def time_study(overrides: list[str], options) -> list[Measurement]:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    rows = []
    with tempfile.TemporaryDirectory(prefix="stacked-runs-") as temporary:
        for number in range(options.rounds):
            for way, arguments in WAYS.items():
                out = Path(temporary) / f"{way}-{number}"
                command = [sys.executable, "-m", "moebius", "run", "linear-experts", *overrides, "--out", str(out)]
                command += ["--seeds", str(options.seeds), "--device", options.device, *arguments]
                command += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
                start = time.perf_counter()
                process = subprocess.run(command, capture_output=True, text=True)
                times[way].append(time.perf_counter() - start)
                if process.returncode:
                    sys.exit(f"ended with code {process.returncode}:\n{process.stdout}{process.stderr}")
                plan = next(line for line in process.stdout.splitlines() if " to do · " in line)
                print(f"{way}: {times[way][-1]:.1f} s · {plan}", flush=True)
                if number == 0:
                    rows += accuracy_rows(way, json.loads((out / "results.json").read_text())["runs"])
    first = next(iter(WAYS))
    for way, seconds in times.items():
        ratios = [first_seconds / way_seconds for first_seconds, way_seconds in zip(times[first], seconds, strict=True)]
        spread = (min(ratios), max(ratios))
        rows.append(
            Measurement(f"study, {way}", statistics.median(seconds), "s", first, statistics.median(ratios), spread)
        )
    return rows


def accuracy_rows(way: str, runs: list[dict]) -> list[Measurement]:
    """Mean test accuracy of each variant, with its interval."""
    rows = []
    for variant in dict.fromkeys(run["variant"] for run in runs):
        mean_interval = interval([run["accuracy"]["test"] for run in runs if run["variant"] == variant])
        mean = mean_interval.mean
        low, high = (mean if end is None else end for end in (mean_interval.low, mean_interval.high))
        rows.append(Measurement(f"{variant}, {way}", 100 * mean, "% right", None, None, (100 * low, 100 * high)))
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="counted rounds; 5, and 1 of a study")
    parser.add_argument("--steps", type=int, help="steps of an epoch; 100, and 8 for study 2 on a CPU")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 5, 10], help="sizes of cohorts")
    parser.add_argument("--model", action="append", choices=[*MODELS, *BETWEEN], help="measure this model only")
    parser.add_argument("--study", action="store_true", help="time whole commands instead")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds of the study")
    parser.add_argument("--data-dir", type=Path, help="as for moebius run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes of the study's recipe")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.study else 5)
    torch.set_num_threads(options.threads)
    print(f"{processor_name()}, {os.cpu_count()} cores, torch {torch.__version__}")
    if options.device == "cuda":
        print(torch.cuda.get_device_name())
    rows = []
    if options.study:
        rows = time_study(options.overrides, options)
    else:
        print(f"{options.threads} threads, {tune_allocator()}")
        for name in options.model or MODELS:
            rows += measure(name, {**MODELS, **BETWEEN}[name], options)
    print_rows(rows)
    write_rows(rows, options.json)


if __name__ == "__main__":
    main()
