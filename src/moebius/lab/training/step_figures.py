"""Figures of training steps, which stay on the device until they are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Shaped
from torch import Tensor


class NotFinite(Exception):
    """A figure of a step is not finite.

    Arguments:
        step: number of the step, from 1.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class Figures:
    """The figures of one step.

    Arguments:
        step: its number, from 1.
        rows: rows of each run.
        terms: of each run, by name; means over its rows.
        scores: of each run, summed over its rows.
        rates: its learning rates, if they are kept.
    """

    step: int
    rows: int
    terms: Sequence[Mapping[str, float]]
    scores: Sequence[float | int]
    rates: Mapping[str, float] = field(default_factory=dict)

    def are_finite(self, run: int) -> bool:
        """Whether all terms of a run are finite numbers."""
        return all(map(math.isfinite, self.terms[run].values()))


class StepFigures:
    """The figures of the steps since they were last taken, as tensors: taking them is the only time to wait."""

    def __init__(self):
        self.steps: list[tuple[int, int, Mapping[str, float]]] = []
        self.names: list[tuple[str, ...]] = []
        self.terms: list[Tensor] = []
        self.scores: list[Tensor] = []

    def add(
        self,
        step: int,
        rows: int,
        terms: Sequence[Mapping[str, Tensor]],
        scores: Shaped[Tensor, " S"],
        rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Keep the figures of a step, as `Figures` describes them; terms are scalars, the same ones in every step."""
        self.names = [tuple(of_run) for of_run in terms]
        self.steps.append((step, rows, rates))
        self.terms += [value.detach() for of_run in terms for value in of_run.values()]
        self.scores.append(scores)

    def take(self, total: Callable[[Tensor], Tensor] = lambda values: values) -> list[Figures]:
        """The figures of all steps that are kept, which are then forgotten.

        Arguments:
            total: the sum over the processes that have shares of a step's rows.
        """
        if not self.steps:
            return []
        # All at once: on a GPU each transfer waits for what is under way.
        values, scores = iter(total(torch.stack(self.terms)).tolist()), total(torch.stack(self.scores)).tolist()
        taken = [
            Figures(step, rows, [{name: next(values) for name in names} for names in self.names], of_step, rates)
            for (step, rows, rates), of_step in zip(self.steps, scores, strict=True)
        ]
        self.steps, self.terms, self.scores = [], [], []
        return taken
