"""The predictions of every expert of a model by itself, for every row."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import ModelCall, splits_inputs
from moebius.lab.training.evaluation import part_outputs
from moebius.layers.mixture import Mixture
from moebius.layers.position_mixture import PositionMixture
from moebius.tasks._task import Task
from moebius.tasks.tokens import Tokens


@dataclass(frozen=True, repr=False)
class ExpertAlone:
    """One expert by itself on the rows of a split, on the CPU.

    Arguments:
        module: the expert.
        paths: its places in the model.
        classes: positions of the classes that it knows; None for all.
        predictions: what the task reads in its outputs: the class with the largest.
        confidence: the softmax probability of that class (the output itself where the expert gives probabilities); NaN
            for a task without.
        scores: the task's score of each row: whether it is predicted right.
    """

    module: nn.Module
    paths: tuple[str, ...]
    classes: tuple[int, ...] | None
    predictions: Shaped[Tensor, "T ..."]
    confidence: Float[Tensor, "T ..."]
    scores: Shaped[Tensor, " T"]

    def __repr__(self) -> str:
        paths, classes = " and ".join(self.paths), "" if self.classes is None else f", classes {list(self.classes)}"
        return f"ExpertAlone({paths}: {type(self.module).__name__}, {len(self.predictions):,} rows{classes})"

    def knows_class(self, labels: Int[Tensor, " T"]) -> Bool[Tensor, " T"]:
        """Which rows are of a class that the expert knows."""
        if self.classes is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return torch.isin(labels, torch.tensor(self.classes))

    @property
    def score(self) -> float:
        """Mean score of the rows; for classes, the share predicted right."""
        return self.scores.double().mean().item()

    @property
    def accuracy(self) -> float:
        """The mean score, for classes."""
        return self.score


def leaf_experts(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """The experts that are no mixtures, with their paths; an expert at several places has several paths.

    An expert of a layer with a gate for each task is not among them: by itself it gives no task's output.
    """
    paths: dict[nn.Module, tuple[str, ...]] = {}
    for path, mixture in model.named_modules(remove_duplicate=False):
        for number, expert in enumerate(mixture.experts if isinstance(mixture, Mixture | PositionMixture) else ()):
            if not isinstance(expert, Mixture | PositionMixture):
                expert_path = f"{path}.experts.{number}".removeprefix(".")
                paths[expert] = (*paths.get(expert, ()), expert_path)
    adapters = [module for module in paths if isinstance(module, Adapter)]
    inner = {module for adapter in adapters for module in adapter.modules() if module is not adapter}
    return {module: places for module, places in paths.items() if module not in inner}


def experts_alone(
    call: ModelCall, task: Task, split: Split, shape: tuple[int, ...], cache: OutputCache | None = None
) -> tuple[ExpertAlone, ...]:
    """Run each expert on all rows of a split.

    Empty where an expert does not do the whole task, and where the model takes several inputs by itself, so that
    nothing tells which of them an expert gets.

    Arguments:
        call: the model that holds the experts; its mode is put back afterwards.
        task: what is learned.
        split: rows.
        shape: of the model's output for a row.
        cache: outputs of frozen experts for the rows of the split.
    """
    if not isinstance(split.images, Tensor) and not splits_inputs(call.model, split.images):
        return ()
    experts = []
    with evaluation_mode(call.model):
        for module, paths in leaf_experts(call.model).items():
            with torch.inference_mode():
                outputs = torch.cat(list(part_outputs(module, split, call, cache))).float()
            if len(outputs) != len(split) or not task.accepts_expert(tuple(outputs.shape[1:]), shape):
                return ()
            columns = task.for_model(module).predict(outputs)
            known_classes = module.classes if isinstance(module, Adapter) else None
            experts.append(
                ExpertAlone(
                    module,
                    paths,
                    known_classes,
                    columns["predictions"].cpu(),
                    columns.get("probabilities", torch.full((len(split),), torch.nan)).cpu(),
                    task.row_scores(outputs, split.labels).cpu(),
                )
            )
    return tuple(experts)


def oracle(experts: tuple[ExpertAlone, ...]) -> float | None:
    """The mean score of a gate that picks the best expert for each row: whether at least one classifies it right."""
    if not experts:
        return None
    return torch.stack([expert.scores for expert in experts]).amax(0).double().mean().item()


def position_oracle(experts: tuple[ExpertAlone, ...], task: Tokens, target: Int[Tensor, "T ..."]) -> float | None:
    """The mean score of a gate that picks the best expert for each position, as a `PositionMixture` may.

    Arguments:
        experts: each alone.
        task: classes of positions.
        target: of the rows.
    """
    if not experts:
        return None
    target = target.cpu()
    is_right = torch.stack([expert.predictions == target for expert in experts]).any(0)
    labelled = (target != task.ignore_index).flatten(1)
    shares = (is_right.flatten(1) & labelled).sum(1) / labelled.sum(1).clamp(min=1)
    return shares.double().mean().item()
