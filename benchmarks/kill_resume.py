"""Kills studies at random moments, resumes them, and compares their files bit by bit with those of whole ones.

    .venv/bin/python benchmarks/kill_resume.py [--kinds single cohort stages workers processes] [--times 20]
        [--seed 0] [--json PATH]

| kind | study | SIGKILL goes to |
| --- | --- | --- |
| single | three variants: linear experts, a noisy top-k router, convolutional experts | the process |
| cohort | four seeds that train together, from one checkpoint | the process |
| stages | two stages, a model of both, and a linear one | the process |
| workers | the same with `--workers 2` | in turn a worker, the command, the whole group |
| processes | `--nproc 2`: two processes train each run together | in turn the second process, the command, the group |

The first three are done in forks of this process, which has imported moebius, so that many trials take little time: a
fork plans the study and does its jobs, as `moebius run --plan-only` and `moebius job` do, and is killed at any moment
between its begin and its end. The others are `moebius run`, killed between the first step and the end of the last run.
Where only a child was killed, the command ends by itself.

The same command must then end with the same weights, optimizer state, random state, metrics, routing and examples as a
study without a kill; the results of the runs that were finished stay as they are, and no temporary file is left. The
exit code is 1 if any trial fails.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from _compare import Measurement, make_parser, write_rows
from _kill_commands import Fork, Process, import_modules, kill, start_command
from _kill_kinds import KINDS, Kind, empty, find_unfinished, list_problems, read_bits, read_results

from moebius.lab.yaml_text import write_yaml

RESUMED = re.compile(r"^resumed (\S+) at epoch \d+ step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Trial:
    """The outcome of a trial.

    Arguments:
        target: who was killed.
        moment: seconds from the begin of the study, or from its first step, to the kill.
        resumed: for each run that went on from a checkpoint, the step.
        problems: what is not as it should be; empty for a trial that succeeded.
    """

    target: str
    moment: float
    resumed: dict[str, int]
    problems: list[str]


class Study:
    """A study of a kind: what it ends in without a kill, and trials.

    Arguments:
        kind: of the trials.
        folder: for the recipe and the folders of studies.
    """

    def __init__(self, kind: Kind, folder: Path):
        self.kind, self.folder, self.recipe = kind, empty(folder), folder / "recipe.yaml"
        self.recipe.write_text(write_yaml(kind.recipe), encoding="utf-8")
        out, log = empty(folder / "whole"), folder / "whole.log"
        if kind.has_fork:
            self.start(out, log).wait()  # decodes the data, which is no part of the time that is measured
            import_modules(log)
        process = self.start(empty(out), log)
        begin = self.wait_for_begin(process, out)
        while process.poll() is None and (kind.has_fork or not (out / "results.json").exists()):
            time.sleep(0.005)
        self.seconds = time.monotonic() - begin
        if process.wait():
            sys.exit(f"the study ended with code {process.wait()}:\n{log.read_text()}")
        self.bits = read_bits(out)

    def start(self, out: Path, log: Path) -> Process:
        """Begin the study in a folder, or go on with it."""
        return (Fork if self.kind.has_fork else start_command)(self.recipe, out, log, self.kind.options)

    def wait_for_begin(self, process: Process, out: Path) -> float:
        """The time at which the process has begun; of a command, has written the first checkpoint."""
        while not self.kind.has_fork and process.poll() is None and not find_unfinished(out):
            time.sleep(0.005)
        return time.monotonic()

    def kill_and_resume(self, share: float, target: str, number: int) -> Trial | None:
        """Kill the study and resume it.

        Arguments:
            share: of the whole study's time that passes before the kill.
            target: who is killed.
            number: of the trial.

        Returns:
            None where the study had ended before.
        """
        out, log = empty(self.folder / "study"), self.folder / "killed.log"
        process = self.start(out, log)
        begin = self.wait_for_begin(process, out)
        time.sleep(share * self.seconds)
        if process.poll() is not None or not (self.kind.has_fork or find_unfinished(out)):
            kill_rest(process)
            return None
        kill(process, target, number)
        moment = time.monotonic() - begin
        process.wait()
        problems = [f"a traceback: {log.read_text()}"] if "Traceback" in log.read_text() else []
        results = read_results(out)
        code = self.start(out, log).wait()
        text = log.read_text()
        problems += [f"ended with code {code}: {text}"] if code else []
        resumed = {name: int(step) for name, step in RESUMED.findall(text)}
        return Trial(target, moment, resumed, problems + list_problems(out, self.bits, results))

    def trials(self, times: int, generator: Random) -> Iterator[Trial]:
        """Trials at random moments; where the study had ended before, another one is drawn."""
        number = 0
        while number < times:
            target = self.kind.targets[number % len(self.kind.targets)]
            trial = self.kill_and_resume(generator.random(), target, number // len(self.kind.targets))
            if trial is not None:
                number += 1
                yield trial


def kill_rest(process: Process) -> None:
    """End a study whose trial does not count."""
    if process.poll() is None:
        kill(process, "group", 0)
        process.wait()


def measure(name: str, times: int, seed: int, folder: Path) -> Measurement:
    """Do the trials of a kind and print each of them."""
    study = Study(KINDS[name], folder)
    print(f"{name}: {len(study.bits)} files, {study.seconds:.2f} s", flush=True)
    same = resumed = 0
    for number, trial in enumerate(study.trials(times, Random(f"{name} {seed}")), 1):
        same += not trial.problems
        resumed += bool(trial.resumed)
        steps = ", ".join(f"{run} at step {step}" for run, step in trial.resumed.items()) or "no run in its middle"
        outcome = "; ".join(trial.problems) or "same bits"
        print(
            f"{name} {number}/{times} · {trial.target} killed after {trial.moment:.2f} s · {steps} · {outcome}",
            flush=True,
        )
    print(f"{name}: {same} of {times} trials with the same bits; {resumed} went on in the middle of a run", flush=True)
    share = same / times
    return Measurement(f"{name}: killed, resumed, same bits", same, "trials", f"{times} trials", share, (share, share))


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--times", type=int, default=20, help="trials of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        rows = [measure(name, options.times, options.seed, Path(temporary) / name) for name in options.kinds]
    write_rows(rows, options.json)
    sys.exit(any(row.ratio != 1 for row in rows))


if __name__ == "__main__":
    main()
