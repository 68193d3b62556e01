"""The sizes of a recipe's models."""

from dataclasses import dataclass

import torch

from moebius.lab.model.build import StageNetworks, build_model
from moebius.lab.model.cost import multiply_adds
from moebius.lab.recipe.check import guess_facts
from moebius.lab.recipe.schema import Recipe
from moebius.lab.recipe.stages import stage_specs
from moebius.tasks._choice import as_task


@dataclass(frozen=True)
class Size:
    """The size of a variant.

    Arguments:
        variant: name of the variant.
        parameters: number of its parameters, trained or frozen.
        multiply_adds: multiply-adds for one image, with the experts that the untrained gate chooses: the mean of
            random images.
    """

    variant: str
    parameters: int
    multiply_adds: int


def sizes(recipe: Recipe) -> list[Size]:
    """The size of each variant, with ten classes assumed for each data set, because the data are not read."""
    facts = guess_facts(recipe.data.model_dump(), as_task(recipe.task))
    variant_sizes = []
    with torch.random.fork_rng(devices=[]):
        for variant in recipe.variants:
            model = build_model(variant.model, facts, StageNetworks(stage_specs(recipe.stages, facts)))
            parameters = sum(parameter.numel() for parameter in model.parameters())
            variant_sizes.append(Size(variant.name, parameters, multiply_adds(model, facts)))
    return variant_sizes
