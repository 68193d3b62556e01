"""What each run of a stack minimises, and the limit to its gradients."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moebius.core.recording import Log
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.objective import Objective
from moebius.lab.training.settings import L2


class CohortObjective:
    """The `Objective` of each run on its own rows, and its own penalty on kernels.

    Arguments:
        stack: the runs' models.
        objectives: of each run.
        penalty: on kernels; None for none.
        kernels: stacked, (S, …).
    """

    def __init__(
        self, stack: CohortModel, objectives: Sequence[Objective], penalty: L2 | None, kernels: Sequence[Tensor]
    ):
        self.stack, self.objectives = stack, tuple(objectives)
        self.penalty, self.kernels = penalty, tuple(kernels)

    @property
    def needs_outputs(self) -> bool:
        """Whether the routings have to hold the outputs of all experts."""
        return any(objective.needs_outputs for objective in self.objectives)

    @property
    def names(self) -> list[list[str]]:
        """What the figures of each run are called: the total, and the terms in their order."""
        penalty = ["l2"] * bool(self.penalty and self.kernels)
        own = [[loss.name for loss in objective.losses] for objective in self.objectives]
        return [["loss", "cross_entropy", *losses, *penalty] for losses in own]

    def __call__(
        self, output: Float[Tensor, "R C"], labels: Int[Tensor, " R"], log: Log, epoch: float
    ) -> list[tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]]:
        """The total and the terms of each run, as `Objective` gives them.

        Arguments:
            output, labels: of S·T rows.
            log: of the model that stands for all.
            epoch: for the weights' schedules.
        """
        runs = len(self.objectives)
        losses = self.objectives[0].cross_entropy(output, labels, reduction="none").view(runs, -1).mean(1)
        found = []
        for run, (objective, loss, own) in enumerate(
            zip(self.objectives, losses.unbind(), labels.view(runs, -1), strict=True)
        ):
            seen = self.stack.log_of(log, run) if objective.losses else {}
            found.append(objective.total(loss, own, seen, epoch))
        if self.penalty is None or not self.kernels:
            return found
        training = [kernel.square().flatten(1).sum(1) for kernel in self.kernels if kernel.requires_grad]
        penalties = torch.stack(training).sum(0) if training else torch.zeros_like(losses)
        return [
            (total + self.penalty.weight * value, {**terms, "l2": value.detach()})
            for (total, terms), value in zip(found, penalties.unbind(), strict=True)
        ]


def figures(found: Sequence[tuple[Tensor, dict[str, Tensor]]], rights: Int[Tensor, " S"]) -> list[list[float]]:
    """Totals and terms of each run as numbers, and last of all how many rows were right.

    All at once: on a GPU each look waits for what is under way.
    """
    tensors = [value.detach() for total, terms in found for value in (total, *terms.values())]
    numbers = iter(torch.cat([torch.stack(tensors), rights]).tolist())
    values = [[next(numbers) for _ in range(1 + len(terms))] for _, terms in found]
    return [[*own, right] for own, right in zip(values, numbers, strict=True)]


def finite(values: Sequence[float]) -> bool:
    """Whether all of them are numbers."""
    return all(map(math.isfinite, values))


def clip(parameters: Sequence[Tensor], most: float | int) -> None:
    """`torch.nn.utils.clip_grad_norm_` for each run by itself: the gradients of stacked parameters, (S, …)."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    norms = torch.stack([one.reshape(len(one), -1).norm(dim=1) for one in gradients]).norm(dim=0)
    scale = (most / (norms + 1e-6)).clamp(max=1)
    for one in gradients:
        one.mul_(scale.view(-1, *[1] * (one.ndim - 1)))
