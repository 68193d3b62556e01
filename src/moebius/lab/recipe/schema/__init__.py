"""The keys of a recipe, their types, defaults and texts; what components take is read from their signatures."""

from moebius.lab.recipe.schema.base import PLACE as PLACE
from moebius.lab.recipe.schema.base import Keywords as Keywords
from moebius.lab.recipe.schema.base import Strict as Strict
from moebius.lab.recipe.schema.file import DataSpec as DataSpec
from moebius.lab.recipe.schema.file import PretrainingSpec as PretrainingSpec
from moebius.lab.recipe.schema.file import RecipeFile as RecipeFile
from moebius.lab.recipe.schema.file import StageFile as StageFile
from moebius.lab.recipe.schema.report import CurvesSpec as CurvesSpec
from moebius.lab.recipe.schema.report import OneExpertSpec as OneExpertSpec
from moebius.lab.recipe.schema.report import ReportSpec as ReportSpec
from moebius.lab.recipe.schema.report import SweepSpec as SweepSpec
from moebius.lab.recipe.schema.resolved import Recipe as Recipe
from moebius.lab.recipe.schema.resolved import Stage as Stage
from moebius.lab.recipe.schema.resolved import Variant as Variant
from moebius.lab.recipe.schema.training import GroupSpec as GroupSpec
from moebius.lab.recipe.schema.training import L2Spec as L2Spec
from moebius.lab.recipe.schema.training import LossSpec as LossSpec
from moebius.lab.recipe.schema.training import OptimizerSpec as OptimizerSpec
from moebius.lab.recipe.schema.training import PlateauSpec as PlateauSpec
from moebius.lab.recipe.schema.training import TrainingSpec as TrainingSpec
from moebius.lab.recipe.schema.training import WatchSpec as WatchSpec

# The folders that a study writes beside its variants' folders.
RESERVED = ("figures", "tables", "stages")
