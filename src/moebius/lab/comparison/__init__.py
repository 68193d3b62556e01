"""Runs beside each other: by how much they differ, how sure that is, and at what cost."""

from moebius.lab.comparison.compare import compare as compare
from moebius.lab.comparison.comparison import Comparison as Comparison
from moebius.lab.comparison.seed_plan import SeedPlan as SeedPlan
from moebius.lab.comparison.seed_plan import plan_seeds as plan_seeds
