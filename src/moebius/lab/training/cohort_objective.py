"""The loss of each run of a cohort, and the limit to its gradients."""

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
    """The `Objective` of each run on its rows, and the penalty on its kernels.

    Arguments:
        model: of the cohort.
        objectives: of each run.
        penalty: on kernels; None for none.
        kernels: stacked, (S, …).
    """

    def __init__(
        self, model: CohortModel, objectives: Sequence[Objective], penalty: L2 | None, kernels: Sequence[Tensor]
    ):
        self.model, self.objectives = model, tuple(objectives)
        self.penalty, self.kernels = penalty, tuple(kernels)

    @property
    def needs_outputs(self) -> bool:
        """Whether the routings have to hold the outputs of all experts."""
        return any(objective.needs_outputs for objective in self.objectives)

    @property
    def names(self) -> list[list[str]]:
        """The names of each run's figures: the total, and the terms in their order."""
        penalty = ["l2"] * bool(self.penalty and self.kernels)
        return [
            ["loss", "cross_entropy", *(loss.name for loss in objective.losses), *penalty]
            for objective in self.objectives
        ]

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
        totals = []
        for run, (objective, loss, run_labels) in enumerate(
            zip(self.objectives, losses.unbind(), labels.view(runs, -1), strict=True)
        ):
            run_log = self.model.run_log(log, run) if objective.losses else {}
            totals.append(objective.total(loss, run_labels, run_log, epoch))
        if self.penalty is None or not self.kernels:
            return totals
        squares = [kernel.square().flatten(1).sum(1) for kernel in self.kernels if kernel.requires_grad]
        penalties = torch.stack(squares).sum(0) if squares else torch.zeros_like(losses)
        return [
            (total + self.penalty.weight * value, {**terms, "l2": value.detach()})
            for (total, terms), value in zip(totals, penalties.unbind(), strict=True)
        ]


def figures(totals: Sequence[tuple[Tensor, dict[str, Tensor]]], correct: Int[Tensor, " S"]) -> list[list[float]]:
    """Total and terms of each run as numbers, and at the end how many of its rows were right.

    All at once: on a GPU each transfer waits for what is under way.
    """
    tensors = [value.detach() for total, terms in totals for value in (total, *terms.values())]
    numbers = iter(torch.cat([torch.stack(tensors), correct]).tolist())
    values = [[next(numbers) for _ in range(1 + len(terms))] for _, terms in totals]
    return [[*run_values, run_correct] for run_values, run_correct in zip(values, numbers, strict=True)]


def are_finite(values: Sequence[float]) -> bool:
    """Whether all values are finite numbers."""
    return all(map(math.isfinite, values))


def clip_gradients(parameters: Sequence[Tensor], most: float | int) -> None:
    """`torch.nn.utils.clip_grad_norm_` for each run by itself: the gradients of stacked parameters, (S, …)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (most / (norms + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
