"""What every expert of a model says by itself, of every row."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.split import Split
from moebius.lab.training.evaluation import part_outputs
from moebius.layers.mixture import Mixture


@dataclass(frozen=True)
class ExpertAlone:
    """One expert by itself on the rows of a split, on the CPU.

    Arguments:
        module: the expert.
        paths: where it stands in the model.
        classes: positions of those that it knows; None for all.
        predictions: the class with its largest output.
        confidence: the softmax probability of that class (its output itself where it gives probabilities).
    """

    module: nn.Module
    paths: tuple[str, ...]
    classes: tuple[int, ...] | None
    predictions: Int[Tensor, " T"]
    confidence: Float[Tensor, " T"]

    def own(self, labels: Int[Tensor, " T"]) -> Bool[Tensor, " T"]:
        """Which rows are of a class that it knows."""
        if self.classes is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return torch.isin(labels, torch.tensor(self.classes))


def leaf_experts(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """The experts that are no mixtures, with their paths; one that stands in several places has several."""
    found: dict[nn.Module, tuple[str, ...]] = {}
    for path, mixture in model.named_modules(remove_duplicate=False):
        for number, expert in enumerate(mixture.experts if isinstance(mixture, Mixture) else ()):
            if not isinstance(expert, Mixture):
                where = f"{path}.experts.{number}".removeprefix(".")
                found[expert] = (*found.get(expert, ()), where)
    outer = [module for module in found if isinstance(module, Adapter)]
    inside = {part for module in outer for part in module.modules() if part is not module}
    return {module: paths for module, paths in found.items() if module not in inside}


def experts_alone(
    model: nn.Module,
    split: Split,
    classes: int,
    channels_last: bool = False,
    memory: OutputCache | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[ExpertAlone, ...]:
    """Run each expert on all rows of a split; none where an expert gives no value per class.

    Arguments:
        model: holds the experts; its mode is put back afterwards.
        split: rows.
        classes: C.
        channels_last: layout of the images.
        memory: of the split, for experts that are frozen.
        autocast: in which the model computes.
    """
    found, memory = [], memory or OutputCache()
    with evaluation_mode(model):
        for module, paths in leaf_experts(model).items():
            with torch.inference_mode():
                said = torch.cat(list(part_outputs(module, split, channels_last, autocast, memory)))
            if said.ndim != 2 or said.shape[1] != classes:
                return ()
            confidence, predictions = _probabilities(module, said.float()).max(-1)
            known = module.classes if isinstance(module, Adapter) else None
            found.append(ExpertAlone(module, paths, known, predictions.cpu(), confidence.cpu()))
    return tuple(found)


def oracle(alone: tuple[ExpertAlone, ...], labels: Int[Tensor, " T"]) -> float | None:
    """Share of rows that at least one expert classifies right: what a gate could reach that picks the best for each."""
    if not alone:
        return None
    return torch.stack([one.predictions == labels for one in alone]).any(0).double().mean().item()


def _probabilities(module: nn.Module, said: Tensor) -> Tensor:
    gives = isinstance(module, Adapter) and module.activation in ("softmax", "sigmoid")
    return said if gives else said.softmax(-1)
