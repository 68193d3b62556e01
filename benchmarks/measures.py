"""How long the streaming measures of a gate take, and how much memory: a million rows of 64 experts by default.

Rows are made batch by batch, which is not timed. Each measure that the rows have the fields for gets every batch; two
more measures of each kind get half of the batches each, and their merged table has to equal that of the whole.

    python benchmarks/measures.py --rows 1000000 --experts 64 --threads 2
"""

import argparse
import resource
import time
from collections.abc import Iterator

import pandas as pd
import torch

from moebius.kit.registry import find, kinds
from moebius.lab.diagnostics import Measure, RoutedRows
from moebius.lab.diagnostics._rows import PIECE

CLASSES, DOMAINS, K = 10, 3, 2


def make_batches(rows: int, experts: int) -> Iterator[RoutedRows]:
    """Batches of rows whose gate knows something of the class, with every expert's loss."""
    random = torch.Generator().manual_seed(0)
    preference = torch.randn(CLASSES, experts, generator=random)
    names = {"class": [f"class {n}" for n in range(CLASSES)], "domain": [f"domain {n}" for n in range(DOMAINS)]}
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        groups = {name: torch.randint(len(names[name]), (count,), generator=random) for name in names}
        probs = (preference[groups["class"]] + torch.randn(count, experts, generator=random)).softmax(1)
        chosen = probs.topk(K, 1)
        weights = torch.zeros_like(probs).scatter(1, chosen.indices, chosen.values)
        weights /= weights.sum(1, keepdim=True)
        losses = torch.rand(count, experts, generator=random)
        mixed = (weights * losses).sum(1)
        scores = losses < 0.5
        outcome = {"losses": mixed, "scores": mixed < 0.5, "expert_losses": losses, "expert_scores": scores}
        yield RoutedRows(weights, probs, weights > 0, K, groups=groups, names=names, **outcome)


def measure_kinds(rows: RoutedRows) -> dict[str, type[Measure]]:
    """The measures that the rows have the fields for."""
    components = {kind: find("diagnostics", kind) for kind in kinds("diagnostics")}
    measures = {kind: c for kind, c in components.items() if isinstance(c, type) and issubclass(c, Measure)}
    return {kind: measure for kind, measure in measures.items() if measure.accepts(rows)}


def main() -> None:
    """Time the measures and compare the halves with the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-halves", action="store_true", help="leave the comparison of two halves out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    first = next(make_batches(100, arguments.experts))
    measures = measure_kinds(first)
    for measure in measures.values():
        measure.of(first)  # imports are not timed
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = {kind: measure() for kind, measure in measures.items()}
    halves = [{kind: measure() for kind, measure in measures.items()} for _ in range(2)]
    seconds, processor, batches, rows = dict.fromkeys(measures, 0.0), 0.0, 0, 0
    for number, batch in enumerate(make_batches(arguments.rows, arguments.experts)):
        processor_start = time.process_time()
        for kind, measure in whole.items():
            start = time.perf_counter()
            measure.update(batch)
            seconds[kind] += time.perf_counter() - start
        processor += time.process_time() - processor_start
        batches, rows = batches + 1, rows + len(batch)
        for measure in halves[number % 2].values() if not arguments.no_halves else ():
            measure.update(batch)
    frames, reading = {}, dict.fromkeys(measures, 0.0)
    for kind, measure in whole.items():
        start = time.perf_counter()
        frames[kind] = measure.frame()
        reading[kind] = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = pd.DataFrame({"update": seconds, "frame": reading, "lines": {k: len(f) for k, f in frames.items()}})
    print(lines.round(3).to_string())
    total = sum(seconds.values()) + sum(reading.values())
    print(f"{rows:,} rows × {arguments.experts} experts, k = {K}, {batches} batches, {arguments.threads} threads")
    print(f"{len(measures)} measures: {total:.2f} s, of which the processor worked {processor:.2f} s (all threads)")
    print(f"peak memory {memory - memory_before:.0f} MB above the imports")
    if not arguments.no_halves:
        for kind, measure in halves[0].items():
            pd.testing.assert_frame_equal(measure.merge(halves[1][kind]).frame(), frames[kind])
        print("two halves merged equal the whole")


if __name__ == "__main__":
    main()
