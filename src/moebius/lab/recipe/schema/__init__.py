"""The keys of a recipe, their types, defaults and texts; what components take is read from their signatures."""

from moebius.lab.recipe.schema.file import DataChange as DataChange
from moebius.lab.recipe.schema.file import DataSpec as DataSpec
from moebius.lab.recipe.schema.file import PretrainingSpec as PretrainingSpec
from moebius.lab.recipe.schema.file import RecipeFile as RecipeFile
from moebius.lab.recipe.schema.file import StageFile as StageFile
from moebius.lab.recipe.schema.published import PublishedSpec as PublishedSpec
from moebius.lab.recipe.schema.published import PublishedVariantSpec as PublishedVariantSpec
from moebius.lab.recipe.schema.report import CurvesSpec as CurvesSpec
from moebius.lab.recipe.schema.report import ExpertCountSpec as ExpertCountSpec
from moebius.lab.recipe.schema.report import OneExpertSpec as OneExpertSpec
from moebius.lab.recipe.schema.report import ReportSpec as ReportSpec
from moebius.lab.recipe.schema.resolved import Point as Point
from moebius.lab.recipe.schema.resolved import Recipe as Recipe
from moebius.lab.recipe.schema.resolved import Stage as Stage
from moebius.lab.recipe.schema.resolved import Variant as Variant
from moebius.lab.recipe.schema.sweep import RangeSpec as RangeSpec
from moebius.lab.recipe.schema.sweep import SweepSpec as SweepSpec

# The folders that a study writes beside its variants' folders.
RESERVED = ("figures", "tables", "stages")
