"""A recipe with the points that its sweep by optuna has proposed so far."""

from collections.abc import Sequence
from dataclasses import replace

from moebius.kit.errors import RecipeError
from moebius.lab.recipe.check import check_recipe
from moebius.lab.recipe.schema import Point, Recipe


def with_points(recipe: Recipe, points: Sequence[Point]) -> Recipe:
    """The recipe whose swept variants are these points.

    Raises:
        RecipeError: a point is no valid model.
    """
    _, variants, _, problems = check_recipe(recipe.resolved(), proposals=points)
    if problems:
        raise RecipeError(recipe.source, [problem.line() for problem in problems])
    return replace(recipe, variants=variants)
