"""`moebius bench`: what a sparse layer of given shapes costs here, beside dense ones, and whether it pays."""

from moebius.lab.bench.measure import Bench, bench
from moebius.lab.bench.problem import Problem

__all__ = ["Bench", "Problem", "bench"]
