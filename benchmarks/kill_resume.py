"""Kills a study at random moments, goes on with it, and compares every bit with one that was never interrupted.

    .venv/bin/python benchmarks/kill_resume.py [--times 20] [--json PATH] [--seed 0] [--recipe NAME [KEY=VALUE …]]

A trial starts the study in a fresh folder (the data are decoded beforehand), waits until a run is past its first step,
waits for a share of the reference's training time that a seeded generator draws, and sends SIGKILL: to the parent
alone in every second trial, to the whole process group in the others. The same command then has to say at which step
above 0 it goes on, and to end with the reference's weights, optimizer and random state, metrics and routing.
A moment at which all runs were finished already is drawn again. The exit code is 1 if any trial fails.
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

from _compare import Row, parser, write

QUICK = [
    "seeds=1",
    "training.epochs=12",
    "training.checkpoint_seconds=0.1",
    "variants={linear: {}, conv: {gate: {kind: mlp, hidden: [64]}, experts: {kind: conv, filters: [16, 32]}}}",
]
FILES = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet")
RESUMED = re.compile(r"^resumed (\S+) at epoch \d+ step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """The uninterrupted study: its bits, and how many seconds it took from a run's first step to the last run's end."""

    bits: dict[str, dict[str, bytes]]
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class Trial:
    """What came of one kill."""

    whole_group: bool
    killed_after: float
    resumed: dict[str, int]
    seconds: float
    problems: list[str]


class Study:
    """One command, whose folder changes."""

    def __init__(self, recipe: str, overrides: list[str], cache: Path):
        # Each run by itself: its own checkpoint is what is watched and compared.
        self.command = [sys.executable, "-m", "moebius", "run", recipe, *overrides, "--cohorts", "never"]
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

    def reference(self, folder: Path) -> Reference:
        out, log = folder / "reference", folder / "reference.log"
        begun = time.monotonic()
        process = self.start(out, log)
        wait_for_first_step(process, out, log)
        first = last = time.monotonic()
        finished = 0
        while process.poll() is None:
            if len(found := runs_of(out, "result.json")) > finished:
                finished, last = len(found), time.monotonic()
            time.sleep(0.01)
        if process.returncode:
            sys.exit(f"the reference ended with code {process.returncode}:\n{log.read_text()}")
        return Reference(bits_of(out), last - first, time.monotonic() - begun)

    def trial(self, folder: Path, reference: Reference, wait: float, whole_group: bool) -> Trial | float:
        """Kill and go on; where the moment came after the last run's end, the seconds that training took."""
        out, log = folder / "study", folder / "killed.log"
        begun = time.monotonic()
        process = self.start(out, log)
        wait_for_first_step(process, out, log)
        first = time.time()
        time.sleep(wait)
        if process.poll() is not None or not under_way(out):
            process.kill()
            process.wait()
            ends = [path.stat().st_mtime for path in out.glob("*/seed-*/result.json")]
            return max(ends) - first if len(ends) == len(reference.bits) else math.inf  # else it was between two runs
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed = time.monotonic() - begun
        again = self.start(out, folder / "resumed.log")
        code = again.wait()
        text = (folder / "resumed.log").read_text()
        resumed = {name: int(step) for name, step in RESUMED.findall(text)}
        problems = [] if code == 0 else [f"ended with code {code}: {text.strip().splitlines()[-1:]}"]
        problems += [] if resumed else ["no run says that it resumed"]
        problems += [f"{name} resumed at step 0" for name, step in resumed.items() if step == 0]
        problems += differences(reference.bits, bits_of(out))
        return Trial(whole_group, killed, resumed, time.monotonic() - begun, problems)


def runs_of(out: Path, file: str) -> list[str]:
    return sorted(str(path.relative_to(out).parents[file.count("/")]) for path in out.glob(f"*/seed-*/{file}"))


def under_way(out: Path) -> list[str]:
    """The runs that have a step behind them and are not finished."""
    return [name for name in runs_of(out, "state/checkpoint.safetensors") if not (out / name / "result.json").exists()]


def wait_for_first_step(process: subprocess.Popen[bytes], out: Path, log: Path) -> None:
    # The loop writes the first checkpoint right after the first step.
    while not under_way(out):
        if process.poll() is not None:
            sys.exit(f"ended with code {process.returncode} before its first step:\n{log.read_text()}")
        time.sleep(0.005)


def bits_of(out: Path) -> dict[str, dict[str, bytes]]:
    return {
        name: {file: (out / name / file).read_bytes() for file in FILES if (out / name / file).exists()}
        for name in runs_of(out, "state/checkpoint.safetensors")
    }


def differences(expected: dict[str, dict[str, bytes]], found: dict[str, dict[str, bytes]]) -> list[str]:
    return [
        f"{name}/{file} differs"
        for name, files in expected.items()
        for file, bits in files.items()
        if found.get(name, {}).get(file) != bits
    ]


def measure(study: Study, times: int, seed: int) -> tuple[Reference, list[Trial]]:
    draw = Random(seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as temporary:
        folder = Path(temporary)
        reference = study.reference(folder)
        print(
            f"reference: {', '.join(reference.bits)} in {reference.seconds:.1f} s,"
            f" {reference.training_seconds:.1f} s of it from the first step to the last run's end",
            flush=True,
        )
        attempt, span = 0, reference.training_seconds
        while len(trials) < times:
            place = folder / str(attempt)
            place.mkdir()
            attempt += 1
            wait = draw.random() * span
            trial = study.trial(place, reference, wait, whole_group=len(trials) % 2 == 1)
            if isinstance(trial, float):
                # The machine has become faster than it was for the reference.
                span = min(span, trial)
                print(f"{wait:.2f} s after the first step all runs were finished: drawn again", flush=True)
                continue
            trials.append(trial)
            what = "group" if trial.whole_group else "parent"
            where = ", ".join(f"{name} at step {step}" for name, step in trial.resumed.items()) or "nothing"
            outcome = "; ".join(trial.problems) or "same bits"
            print(
                f"{len(trials):3}/{times} killed the {what:6} {wait:5.2f} s after the first step"
                f" · resumed {where} · {outcome}",
                flush=True,
            )
    return reference, trials


def figures(reference: Reference, trials: list[Trial]) -> list[Row]:
    good, share = [trial for trial in trials if not trial.problems], statistics.mean(not t.problems for t in trials)
    seconds = statistics.median(trial.seconds for trial in trials)
    ratios = [trial.seconds / reference.seconds for trial in trials]
    low, high = min(ratios), max(ratios)
    return [
        Row("killed and resumed, same bits", len(good), "trials", f"{len(trials)} trials", share, (share, share)),
        Row("killed and resumed, wall time", seconds, "s", "uninterrupted", statistics.median(ratios), (low, high)),
    ]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--times", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments.add_argument("--recipe", default="quickstart")
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"default: {' '.join(QUICK)}")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-resume-cache-") as cache:
        study = Study(options.recipe, options.overrides or QUICK, Path(cache))
        reference, trials = measure(study, options.times, options.seed)
    rows = figures(reference, trials)
    print(f"{rows[0].value} of {len(trials)} trials ended in the uninterrupted bits")
    write(rows, options.json)
    sys.exit(rows[0].value != len(trials))


if __name__ == "__main__":
    main()
