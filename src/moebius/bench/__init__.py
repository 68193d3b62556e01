"""`moebius bench`: what a sparse layer of given shapes costs here, beside dense ones, and whether it pays."""

from moebius.bench.measure import Bench, bench
from moebius.bench.problem import Problem

__all__ = ["Bench", "Problem", "bench"]
