"""Everything that is still to be measured on a GPU, in the order of its value, within so many minutes.

    python benchmarks/gpu.py --minutes 12                # or: make gpu
    python benchmarks/gpu.py --minutes 12 --only speed --only rule
    python benchmarks/gpu.py --dry                       # the whole plan on a CPU, at tiny shapes

Parts, each a process that ends by a deadline of its own:
- kernels: outputs and gradients of the fused kernels beside a plain loop in float32, then the kernels' tests;
- speed: TFLOP/s forward and backward, and peaks of memory, of swiglu experts without biases in bf16, compared with
  dense (only the products of one dense layer with as many rows as there are assignments, an upper bound), grouped
  (sort, copy, `torch.nn.functional.grouped_mm`, weighted scatter), ScatterMoE, and SonicMoE (of the hub by the package
  `kernels`, or the package `sonicmoe`) where they can be imported; timed by CUDA events, the candidates in turn;
- rule: all executions of a sparse layer at some sizes, and what `auto` picks: a table for the card;
- studies: those that are still to be run, smallest first;
- cohorts: runs that train as one, beside runs that train alone.

Results are written item by item into --runs FOLDER (`PART.jsonl`), and the studies into FOLDER/studies. The same
command with the same folder, also on another machine, goes on: items that are done are not repeated, and studies go on
from their checkpoints. At the end a table says what ran, what was cut by its deadline and what is left.
"""

import sys
import time
from pathlib import Path

import torch
from _compare import Measurement, make_parser, write_rows
from _gpu_conditions import Conditions
from _gpu_plan import SHARES, outcome_lines, results_of, run_items, run_plan
from _gpu_rule import rule_lines

ROOT = Path(__file__).parents[1]


def find_data() -> Path | None:
    """The folder of data sets in or beside the repository, where there is one."""
    folders = (ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
    return next((folder for folder in folders if (folder / "mnist").is_dir()), None)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=12, help="for everything, default 12")
    parser.add_argument("--only", choices=SHARES, action="append", help="this part; may be repeated")
    parser.add_argument("--dry", action="store_true", help="on the CPU at tiny shapes, Triton interpreted")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="results and studies, default runs/gpu")
    parser.add_argument("--data-dir", type=Path, help="data sets, default shared/data or ../shared/data")
    parser.add_argument("--workers", type=int, default=16, help="processes that train at a time in a study")
    parser.add_argument("--part", choices=SHARES, help="run this part here, until --ends")
    parser.add_argument("--ends", type=float, default=float("inf"), help="moment in seconds since 1970")
    options = parser.parse_args()
    if not (options.dry or torch.cuda.is_available()):
        print("benchmarks/gpu.py needs a GPU; --dry runs the whole plan on a CPU at tiny shapes")
        sys.exit(2)
    card = "the CPU, dry: these figures mean nothing" if options.dry else torch.cuda.get_device_name()
    conditions = Conditions(options.dry, options.ends, options.runs, options.data_dir or find_data(), options.workers)
    if options.part:
        run_items(options.part, conditions, {"card": card, "torch": torch.__version__})
        return
    begun = time.monotonic()
    print(f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    parts = [part for part in SHARES if part in (options.only or SHARES)]
    outcomes = run_plan(parts, options.minutes, conditions)
    if "rule" in parts:
        print(*rule_lines(card, results_of("rule", conditions).lines().values()), sep="\n")
    print(*outcome_lines(outcomes), sep="\n")
    lines = [line for part in parts for line in results_of(part, conditions).lines().values()]
    write_rows([Measurement(**figure) for line in lines for figure in line["figures"]], options.json)
    print(f"{card}: {time.monotonic() - begun:.0f} s; results in {options.runs}")
    if any(outcome.failed or outcome.state.startswith("ended") for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
