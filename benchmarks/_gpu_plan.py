"""The plan of `gpu.py`: each part is a process that ends by its deadline, and what it wrote until then stays."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _gpu_conditions import Conditions
from _gpu_results import Results

# In order of value; the shares of the time that is left when a part begins.
SHARES = {"kernels": 3, "speed": 3, "rule": 3, "studies": 4, "cohorts": 1}
# A part that leaves items undone stops this many seconds before it would be ended.
MARGIN = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Arguments:
        part: its name.
        state: "finished", "cut by its deadline", or "ended with code N".
        seconds: that it took.
        done, failed, left: names of its items, with errors of those that failed.
    """

    part: str
    state: str
    seconds: float
    done: Sequence[str]
    failed: dict[str, str]
    left: Sequence[str]


def make_items(part: str, conditions: Conditions) -> dict[str, Any]:
    """The items of a part, by name, in the order in which they run."""
    return importlib.import_module(f"_gpu_{part}").make_items(conditions)


def results_of(part: str, conditions: Conditions) -> Results:
    """Where a part writes; a dry one elsewhere."""
    return Results(conditions.folder / f"{part}{'-dry' if conditions.dry else ''}.jsonl")


def run_items(part: str, conditions: Conditions, facts: dict[str, Any]) -> None:
    """Run the items of a part that are not done, and write the results of each; in the part's process."""
    results = results_of(part, conditions)
    for name, item in make_items(part, conditions).items():
        if results.is_done(name):
            continue
        if conditions.seconds_left < MARGIN:
            return
        print(f"[{part}] {name}", flush=True)
        begun, figures, more, error = time.monotonic(), [], {}, ""
        try:
            figures, more = item()
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            print(f"[{part}] {name}: {error}", flush=True)
        results.add(name, figures, time.monotonic() - begun, error, **facts, **more)


def run_process(command: Sequence[str], seconds: float, environment: dict[str, str]) -> tuple[int | None, float]:
    """Run a command, and end all its processes after so many seconds.

    Returns:
        The code that it ended with, None where it was ended, and the seconds that it took.
    """
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    code = None
    try:
        code = process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Also what a process that ended has left behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code, time.monotonic() - begun


def run_part(part: str, seconds: float, conditions: Conditions) -> Outcome:
    """Run a part in a process of its own that ends within so many seconds."""
    script = Path(__file__).with_name("gpu.py")
    ends = time.time() + seconds
    command = [sys.executable, str(script), "--part", part, "--ends", str(ends), "--runs", str(conditions.folder)]
    command += ["--workers", str(conditions.workers), *(["--dry"] if conditions.dry else [])]
    command += [] if conditions.data_dir is None else ["--data-dir", str(conditions.data_dir)]
    # Triton reads the variable once, when it is imported.
    environment = {**os.environ, **({"TRITON_INTERPRET": "1"} if conditions.dry else {})}
    environment["PYTHONPATH"] = os.pathsep.join([str(script.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    code, taken = run_process(command, seconds, environment)
    names, lines = list(make_items(part, conditions)), results_of(part, conditions).lines()
    states = {name: lines[name]["state"] for name in names if name in lines}
    done = [name for name, state in states.items() if state == "done"]
    failed = {name: lines[name]["error"] for name, state in states.items() if state == "failed"}
    left = [name for name in names if name not in states]
    is_cut = code is None or (code == 0 and left) or any("TimeoutError" in error for error in failed.values())
    state = "cut by its deadline" if is_cut else "finished" if code == 0 else f"ended with code {code}"
    return Outcome(part, state, taken, done, failed, left)


def run_plan(parts: Sequence[str], minutes: float, conditions: Conditions) -> list[Outcome]:
    """Run the parts in turn within so many minutes; time that one does not need goes to those after it."""
    ends, outcomes = time.monotonic() + 60 * minutes, []
    for number, part in enumerate(parts):
        shares = [SHARES[each] for each in parts[number:]]
        seconds = (ends - time.monotonic()) * shares[0] / sum(shares)
        print(f"[{part}] at most {seconds:.0f} s", flush=True)
        outcomes.append(run_part(part, seconds, conditions))
    return outcomes


def outcome_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The table at the end: what ran, what was cut, and what is left."""
    text = [f"{'part':<9} {'state':<20} {'seconds':>7} {'done':>5} {'failed':>6} {'left':>5}"]
    for each in outcomes:
        counts = f"{len(each.done):>5} {len(each.failed):>6} {len(each.left):>5}"
        text.append(f"{each.part:<9} {each.state:<20} {each.seconds:>7.1f} {counts}")
    for each in outcomes:
        text += [f"failed: {each.part}: {name}: {error.splitlines()[0]}" for name, error in each.failed.items()]
        text += [f"left: {each.part}: {name}" for name in each.left]
    return text
