"""What a remedy is fitted to, what it gives, and the decorator that makes one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Split
from moebius.lab.illnesses._illness import Finding
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.gate_places import GatePlace, find_gate
from moebius.tasks._task import Task

Aim = Literal["loss", "work", "use", "calibration"]
# The share of the rows that choose among several forms of a remedy, and the epoch of each.
HELD_OUT = 0.25


@dataclass(frozen=True)
class Treatment:
    """A changed copy of a model.

    Arguments:
        model: the copy, in evaluation mode.
        text: what was done, for people.
    """

    model: nn.Module
    text: str


@dataclass(frozen=True)
class Obstacle:
    """Why a remedy, or a way to combine networks, cannot be tried.

    Arguments:
        reason: as half a sentence.
    """

    reason: str


@dataclass(frozen=True)
class Case:
    """A gate of a model, and the rows that a remedy is fitted to.

    Arguments:
        call: the model, which no remedy changes.
        task: what is learned, for this model.
        gate: name of the gate, as in a finding.
        rows: on the model's device; the model was not trained on them.
        finding: why the remedy is tried; None where someone wants to know.
        seed: of everything random.
    """

    call: ModelCall
    task: Task
    gate: str
    rows: Split
    finding: Finding | None = None
    seed: int = 0

    def copy(self) -> nn.Module:
        """A copy of the model, in evaluation mode.

        Raises:
            ArgumentError: it cannot be copied.
        """
        try:
            return copy.deepcopy(self.call.model).eval()
        except (RuntimeError, TypeError, ValueError) as error:
            rule = f"must be a module that can be copied ({error})"
            raise ArgumentError("model", rule, type(self.call.model).__name__, "copy.deepcopy(model)") from None

    def place(self, model: nn.Module) -> GatePlace:
        """Where the gate stands in the model or in a copy of it."""
        return find_gate(model, self.gate)

    def call_of(self, model: nn.Module) -> ModelCall:
        """How another model is computed."""
        return replace(self.call, model=model)

    def halves(self) -> tuple[Split, Split]:
        """Rows to fit, and rows that choose among forms of a remedy."""
        order = torch.from_numpy(np.random.default_rng([self.seed, 1]).permutation(len(self.rows)))
        order = order.to(self.rows.device)
        count = max(round(HELD_OUT * len(self.rows)), 1)
        return self.rows.take(order[count:]), self.rows.take(order[:count])


@dataclass(frozen=True)
class Remedy:
    """What is known of a remedy, as `remedy` declares it.

    Arguments:
        aim: what it is for: less "loss" (and a better score), less "work", a more even "use" of experts, or
            "calibration" of the probabilities.
        keeps_answers: whether the predictions stay the same.
    """

    aim: Aim
    keeps_answers: bool = False


Function = TypeVar("Function", bound=Callable[[Case], Treatment | Obstacle])


def remedy(aim: Aim, keeps_answers: bool = False) -> Callable[[Function], Function]:
    """Decorate a function Case → Treatment or Obstacle: it is a remedy of its name.

    Arguments:
        aim, keeps_answers: as in `Remedy`.

    Example:
        >>> @remedy("loss")
        ... def nothing(case):
        ...     return Obstacle("there is nothing to do")
        >>> nothing.remedy.aim
        'loss'

    Reference: ours.
    """

    def decorate(function: Function) -> Function:
        function.remedy = Remedy(aim, keeps_answers)  # type: ignore[attr-defined]
        return function

    return decorate
