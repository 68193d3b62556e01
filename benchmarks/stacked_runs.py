"""Cohorts of runs against runs one after another, and a whole study in three ways.

    .venv/bin/python benchmarks/stacked_runs.py [--device cuda] [--json PATH]
    .venv/bin/python benchmarks/stacked_runs.py --study --data-dir ../shared/data [training.epochs=2 …]

Without `--study`: steps a second of cohorts of 1, 2, 5 and 10 runs and of one run alone, for the four models of study
1 and two of study 2, batch 128, 32×32 grey images drawn at random; all in one process and in turn, medians over
rounds, and the ratio within rounds with its smallest and largest value. A step of a cohort of five counts as five.
Beside it the largest difference between the first step's gradients, in the cohort and alone, as a share of the largest
gradient; where relu has a million values to cut off, one of them may lie within rounding of 0, and the difference is
then that of a row.

With `--study`: `moebius run linear-experts --seeds 5` one run after another (one process, all threads), one process a
core, and with cohorts; wall times of the whole commands, and the mean test accuracy of every variant with its 95 %
interval over seeds. KEY=VALUE change the recipe.
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

import torch
from _compare import Row, compare, parser, processor, rates, show, write
from steps import BATCH, STUDY_1, STUDY_2, random_data

from moebius.kit.allocator import tune_allocator
from moebius.lab.data.split import Dataset
from moebius.lab.diagnostics.interval import interval
from moebius.lab.model.build import build_mixture
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
# Between the two studies: where a step turns from overhead into arithmetic.
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


def settings() -> Settings:
    plain = {"epochs": 1, "batch_size": BATCH, "optimizer": {"kind": "adam", "lr": 1e-3}, "precision": "fp32"}
    return Settings.from_plain(plain)


def alone(model: dict, data: Dataset, device: str) -> Callable[[], int]:
    folder = Path(tempfile.mkdtemp())
    trainer = Trainer(lambda: build_mixture(model, data.facts), data, settings(), 0, folder, device)

    def epoch() -> int:
        trainer.progress.batch = 0
        trainer.train_epoch()
        return trainer.steps_per_epoch

    return epoch


def members(model: dict, data: Dataset, runs: int, folder: Path) -> list[CohortMember]:
    def build():
        return build_mixture(model, data.facts)

    return [CohortMember(build, settings(), seed, folder / str(seed)) for seed in range(runs)]


def cohort(model: dict, data: Dataset, runs: int, device: str) -> Callable[[], int]:
    folder = Path(tempfile.mkdtemp())
    trainer = CohortTrainer(members(model, data, runs, folder), data, folder / "cohort.safetensors", device)

    def epoch() -> int:
        for record in trainer.run_records:
            record.progress.batch = 0
        trainer.train_epoch()
        return runs * trainer.steps_per_epoch

    return epoch


def first_step(model: dict, data: Dataset, runs: int, device: str) -> float:
    """The largest difference between the first step's gradients, as a share of the largest gradient."""
    one_step = replace(data, train=data.train.take(torch.arange(BATCH)))
    folder = Path(tempfile.mkdtemp())
    every = members(model, one_step, runs, folder)
    together = CohortTrainer(every, one_step, folder / "cohort.safetensors", device)
    together.train_epoch()
    most = largest = 0.0
    for run, member in enumerate(every):
        trainer = Trainer(member.build, one_step, member.settings, member.seed, folder / f"alone-{run}", device)
        trainer.train_epoch()
        for parameter, leaf in zip(trainer.parameters, together.leaves, strict=True):
            if parameter.grad is not None and leaf.grad is not None:
                most = max(most, (parameter.grad - leaf.grad[run]).abs().max().item())
                largest = max(largest, parameter.grad.abs().max().item())
    return most / largest


def measure(name: str, model: dict, options) -> list[Row]:
    steps = options.steps or (8 if name.startswith("2") and options.device == "cpu" else 100)
    data = random_data(BATCH * steps)
    work = RowWork.of(lambda: build_mixture(model, data.facts), data).multiply_adds
    why = cohort_obstacle(lambda: build_mixture(model, data.facts), settings(), data)
    prefix = f"{name}, "
    print(f"{name}: {work:,} multiply-adds an image, {work * BATCH:,} a step" + (f"; it {why}" if why else ""))
    if why is not None:
        return []
    candidates = {"alone": alone(model, data, options.device)}
    candidates |= {f"cohort of {runs}": cohort(model, data, runs, options.device) for runs in options.runs}
    pairs = [(f"cohort of {runs}", "alone") for runs in options.runs]
    found = compare(rates(candidates, options.rounds), pairs, "steps/s", prefix)
    most = max(options.runs)
    share = first_step(model, data, most, options.device)
    print(f"{prefix}first gradients of {most} runs differ by {share:.1e} of the largest")
    return [*found, Row(f"{prefix}first gradients of {most} runs", share, "of largest", None, None, (share, share))]


def study(overrides: list[str], options) -> list[Row]:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    rows = []
    with tempfile.TemporaryDirectory(prefix="stacked-runs-") as temporary:
        for number in range(options.rounds):
            for way, arguments in WAYS.items():
                out = Path(temporary) / f"{way}-{number}"
                command = [sys.executable, "-m", "moebius", "run", "linear-experts", *overrides, "--out", str(out)]
                command += ["--seeds", str(options.seeds), "--device", options.device, *arguments]
                command += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
                begun = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True)
                times[way].append(time.perf_counter() - begun)
                if done.returncode:
                    sys.exit(f"ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
                said = next(line for line in done.stdout.splitlines() if " to do · " in line)
                print(f"{way}: {times[way][-1]:.1f} s · {said}", flush=True)
                if number == 0:
                    rows += accuracies(way, json.loads((out / "results.json").read_text())["runs"])
    first = next(iter(WAYS))
    for way, taken in times.items():
        ratios = [before / after for before, after in zip(times[first], taken, strict=True)]
        spread = (min(ratios), max(ratios))
        rows.append(Row(f"study, {way}", statistics.median(taken), "s", first, statistics.median(ratios), spread))
    return rows


def accuracies(way: str, runs: list[dict]) -> list[Row]:
    rows = []
    for variant in dict.fromkeys(run["variant"] for run in runs):
        found = interval([run["accuracy"]["test"] for run in runs if run["variant"] == variant])
        low, high = (found.mean if end is None else end for end in (found.low, found.high))
        rows.append(Row(f"{variant}, {way}", 100 * found.mean, "% right", None, None, (100 * low, 100 * high)))
    return rows


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--rounds", type=int, help="counted rounds; 5, and 1 of a study")
    arguments.add_argument("--steps", type=int, help="of an epoch; 100, and 8 for study 2 on a CPU")
    arguments.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    arguments.add_argument("--runs", type=int, nargs="+", default=[1, 2, 5, 10], help="sizes of cohorts")
    arguments.add_argument("--model", action="append", choices=[*MODELS, *BETWEEN], help="only this one")
    arguments.add_argument("--study", action="store_true", help="time whole commands instead")
    arguments.add_argument("--seeds", type=int, default=5, help="of the study")
    arguments.add_argument("--data-dir", type=Path, help="as for moebius run")
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes of the study's recipe")
    options = arguments.parse_args()
    options.rounds = options.rounds or (1 if options.study else 5)
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}")
    if options.device == "cuda":
        print(torch.cuda.get_device_name())
    rows = []
    if options.study:
        rows = study(options.overrides, options)
    else:
        print(f"{options.threads} threads, {tune_allocator()}")
        for name in options.model or MODELS:
            rows += measure(name, {**MODELS, **BETWEEN}[name], options)
    show(rows)
    write(rows, options.json)


if __name__ == "__main__":
    main()
