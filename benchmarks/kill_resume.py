"""Kills a study at random moments, resumes it, and compares its files bit by bit with those of an uninterrupted one.

    .venv/bin/python benchmarks/kill_resume.py [--times 20] [--json PATH] [--seed 0] [--cohort]
        [--recipe NAME [KEY=VALUE …]]

A trial starts the study in a fresh folder (the data are decoded before), waits until a run is past its first step,
waits for a random share of the reference's training time, and sends SIGKILL: in every second trial to the whole process
group, in the others to the parent only. The same command must then print a step above 0 at which it resumes, and end
with the reference's weights, optimizer state, random state, metrics and routing. Where all runs were finished at the
random moment, the benchmark draws another one. The exit code is 1 if any trial fails.

With --cohort the runs train together, from one checkpoint that is gone when all have ended: what is compared of them
are weights, metrics and routing.
"""

import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from _compare import Measurement, make_parser, write_rows

QUICK = [
    "seeds=1",
    "training.epochs=12",
    "training.checkpoint_seconds=0.1",
    "variants={linear: {}, conv: {gate: {kind: mlp, hidden: [64]}, experts: {kind: conv, filters: [16, 32]}}}",
]
COHORT = ["seeds=4", "training.epochs=12", "training.checkpoint_seconds=0.1", "variants={linear: {}}"]
FILES = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet")
RESUMED = re.compile(r"^resumed (\S+) at epoch \d+ step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """The uninterrupted study.

    Arguments:
        bits: for each run, the contents of its files.
        training_seconds: time from the first step of a run to the end of the last run.
        seconds: time of the whole command.
    """

    bits: dict[str, dict[str, bytes]]
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class Trial:
    """The outcome of one trial.

    Arguments:
        whole_group: whether the whole process group was killed.
        killed_after: seconds from the start of the command to the kill.
        resumed: for each run that resumed, the step.
        seconds: time of both commands.
        problems: what differs from the reference; empty for a trial that succeeded.
    """

    whole_group: bool
    killed_after: float
    resumed: dict[str, int]
    seconds: float
    problems: list[str]


class Study:
    """The command of the study, for any folder."""

    def __init__(self, recipe: str, overrides: list[str], cohort: bool, cache: Path):
        cohorts = "always" if cohort else "never"
        self.command = [sys.executable, "-m", "moebius", "run", recipe, *overrides, "--cohorts", cohorts]
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}

    def start(self, out: Path, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(
                [*self.command, "--out", str(out)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def run_reference(self, folder: Path) -> Reference:
        out, log = folder / "reference", folder / "reference.log"
        started = time.monotonic()
        process = self.start(out, log)
        wait_for_first_step(process, out, log)
        first_step = last_end = time.monotonic()
        finished = 0
        while process.poll() is None:
            if len(runs := find_runs(out, "result.json")) > finished:
                finished, last_end = len(runs), time.monotonic()
            time.sleep(0.01)
        if process.returncode:
            sys.exit(f"the reference ended with code {process.returncode}:\n{log.read_text()}")
        return Reference(read_bits(out), last_end - first_step, time.monotonic() - started)

    def run_trial(self, folder: Path, reference: Reference, wait: float, whole_group: bool) -> Trial | float:
        """Kill the study and resume it.

        Returns:
            The trial; where all runs were finished before the kill, the seconds that training took instead.
        """
        out, log = folder / "study", folder / "killed.log"
        started = time.monotonic()
        process = self.start(out, log)
        wait_for_first_step(process, out, log)
        first_step = time.time()
        time.sleep(wait)
        if process.poll() is not None or not find_unfinished(out):
            process.kill()
            process.wait()
            ends = [path.stat().st_mtime for path in out.glob("*/seed-*/result.json")]
            return max(ends) - first_step if len(ends) == len(reference.bits) else math.inf  # it was between two runs
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed = time.monotonic() - started
        code = self.start(out, folder / "resumed.log").wait()
        text = (folder / "resumed.log").read_text()
        resumed = {name: int(step) for name, step in RESUMED.findall(text)}
        problems = [] if code == 0 else [f"ended with code {code}: {text.strip().splitlines()[-1:]}"]
        problems += [] if resumed else ["no run resumed"]
        problems += [f"{name} resumed at step 0" for name, step in resumed.items() if step == 0]
        problems += list_differences(reference.bits, read_bits(out))
        return Trial(whole_group, killed, resumed, time.monotonic() - started, problems)


def find_runs(out: Path, file: str) -> list[str]:
    return sorted(str(path.relative_to(out).parents[file.count("/")]) for path in out.glob(f"*/seed-*/{file}"))


def find_unfinished(out: Path) -> list[str]:
    """Names of the runs that have made a step and are not finished."""
    started = find_runs(out, "state/checkpoint.safetensors")
    return [name for name in started if not (out / name / "result.json").exists()]


def wait_for_first_step(process: subprocess.Popen[bytes], out: Path, log: Path) -> None:
    # The loop writes the first checkpoint right after the first step.
    while not find_unfinished(out):
        if process.poll() is not None:
            sys.exit(f"ended with code {process.returncode} before its first step:\n{log.read_text()}")
        time.sleep(0.005)


def read_bits(out: Path) -> dict[str, dict[str, bytes]]:
    return {
        name: {file: (out / name / file).read_bytes() for file in FILES if (out / name / file).exists()}
        for name in find_runs(out, "result.json")
    }


def list_differences(expected: dict[str, dict[str, bytes]], actual: dict[str, dict[str, bytes]]) -> list[str]:
    return [
        f"{name}/{file} differs"
        for name, files in expected.items()
        for file, bits in files.items()
        if actual.get(name, {}).get(file) != bits
    ]


def measure(study: Study, times: int, seed: int) -> tuple[Reference, list[Trial]]:
    generator = Random(seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as temporary:
        folder = Path(temporary)
        reference = study.run_reference(folder)
        print(
            f"reference: {', '.join(reference.bits)} in {reference.seconds:.1f} s,"
            f" {reference.training_seconds:.1f} s of it from the first step to the last run's end",
            flush=True,
        )
        attempt, span = 0, reference.training_seconds
        while len(trials) < times:
            trial_folder = folder / str(attempt)
            trial_folder.mkdir()
            attempt += 1
            wait = generator.random() * span
            trial = study.run_trial(trial_folder, reference, wait, whole_group=len(trials) % 2 == 1)
            if isinstance(trial, float):
                # The machine has become faster than it was during the reference.
                span = min(span, trial)
                print(f"{wait:.2f} s after the first step all runs were finished: drawn again", flush=True)
                continue
            trials.append(trial)
            target = "group" if trial.whole_group else "parent"
            steps = ", ".join(f"{name} at step {step}" for name, step in trial.resumed.items()) or "nothing"
            outcome = "; ".join(trial.problems) or "same bits"
            print(
                f"{len(trials):3}/{times} killed the {target:6} {wait:5.2f} s after the first step"
                f" · resumed {steps} · {outcome}",
                flush=True,
            )
    return reference, trials


def make_rows(reference: Reference, trials: list[Trial]) -> list[Measurement]:
    successes = [trial for trial in trials if not trial.problems]
    share = len(successes) / len(trials)
    seconds = statistics.median(trial.seconds for trial in trials)
    ratios = [trial.seconds / reference.seconds for trial in trials]
    low, high = min(ratios), max(ratios)
    return [
        Measurement(
            "killed and resumed, same bits", len(successes), "trials", f"{len(trials)} trials", share, (share, share)
        ),
        Measurement(
            "killed and resumed, wall time", seconds, "s", "uninterrupted", statistics.median(ratios), (low, high)
        ),
    ]


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--cohort", action="store_true", help=f"all runs as one cohort; default: {' '.join(COHORT)}")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"default: {' '.join(QUICK)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-resume-cache-") as cache:
        study = Study(
            options.recipe, options.overrides or (COHORT if options.cohort else QUICK), options.cohort, Path(cache)
        )
        reference, trials = measure(study, options.times, options.seed)
    rows = make_rows(reference, trials)
    print(f"{rows[0].value} of {len(trials)} trials ended in the uninterrupted bits")
    write_rows(rows, options.json)
    sys.exit(rows[0].value != len(trials))


if __name__ == "__main__":
    main()
