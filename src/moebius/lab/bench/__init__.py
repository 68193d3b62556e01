"""`moebius bench`: the time of a sparse layer on this machine, compared with dense layers, and whether it pays."""

from moebius.lab.bench.measure import Bench, bench
from moebius.lab.bench.workload import Workload

__all__ = ["Bench", "Workload", "bench"]
