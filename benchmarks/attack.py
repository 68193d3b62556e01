"""Hands mutated recipes, models, images, tables and studies to moebius and counts what comes of them.

    .venv/bin/python benchmarks/attack.py [ENTRY …] [--inputs 100] [--slices 1] [--seed 0] [--json PATH]

The generators are those of tests/attack. Each slice of an entry is a process of its own with so many inputs, so that an
abort is counted, too. An input is taken, or refused with an error of moebius; anything else fails: another exception,
more than ten seconds of processor time, a process that ends. The exit code is 1 if any input fails, or if the peak of
the memory of a process grows by more than 2 GiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "attack"))

from mutations import ENTRIES
from mutations.trials import Counts, try_inputs

MOST_MEBIBYTES = 2048


def run_slice(entry: str, seed: int, inputs: int) -> Counts:
    """Count in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="moebius-attack-") as folder:
        path = Path(folder) / "counts.json"
        command = [sys.executable, __file__, entry, "--seed", str(seed), "--inputs", str(inputs), "--child", str(path)]
        done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        if not path.is_file():
            return Counts(failures=[f"seed {seed}: the process ended with {done.returncode}: {done.stderr[-2000:]}"])
        return Counts(**json.loads(path.read_text()))


def run_child(entry: str, seed: int, inputs: int, path: Path) -> None:
    """Count, and write the counts."""
    folder = path.parent / "inputs"
    folder.mkdir()
    path.write_text(json.dumps(asdict(try_inputs(ENTRIES[entry](folder), seed, inputs))))


def main() -> int:
    """Run the slices that the command names; 1 if an input fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("entries", nargs="*", default=list(ENTRIES), metavar="ENTRY", choices=[*ENTRIES, []])
    parser.add_argument("--inputs", type=int, default=100, help="of each slice")
    parser.add_argument("--slices", type=int, default=1, help="of each entry")
    parser.add_argument("--seed", type=int, default=0, help="of the first slice")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        run_child(asked.entries[0], asked.seed, asked.inputs, asked.child)
        return 0
    rows, failed = [], False
    print(f"{'entry':<26} {'inputs':>7} {'taken':>7} {'refused':>8} {'failed':>7} {'slowest s':>10} {'MiB more':>9}")
    for entry in asked.entries or list(ENTRIES):
        total = Counts()
        for number in range(asked.slices):
            counts = run_slice(entry, asked.seed + number, asked.inputs)
            total.worked, total.refused = total.worked + counts.worked, total.refused + counts.refused
            total.failures += counts.failures
            total.seconds = max(total.seconds, counts.seconds)
            total.mebibytes = max(total.mebibytes, counts.mebibytes)
        numbers = f"{total.inputs:>7} {total.worked:>7} {total.refused:>8} {len(total.failures):>7}"
        print(f"{entry:<26} {numbers} {total.seconds:>10.2f} {total.mebibytes:>9.0f}", flush=True)
        for failure in total.failures:
            print(f"  {failure}")
        failed |= bool(total.failures) or total.mebibytes > MOST_MEBIBYTES
        rows.append({"entry": entry, **asdict(total)})
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
