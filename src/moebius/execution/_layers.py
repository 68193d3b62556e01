"""Experts computed dense layer by dense layer, for the rows of several experts at once.

Such an expert treats every row by itself, and all its parameters are those of dense layers. An execution then says how
a layer of all experts meets the rows, and the rest of the expert computes as it is. A class declares it by a method
`rowwise(x, layer)` beside its `forward`, which computes the same with `layer(linear, x)` in the place of `linear(x)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.stack import Stack
from moebius.execution._pool import Pool

Layer = Callable[[nn.Linear, Tensor], Tensor]


def apply_with_layers(module: nn.Module, x: Tensor, layer: Layer) -> Tensor:
    """What the module's forward computes, with `layer(linear, x)` in the place of each dense layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> apply_with_layers(network, torch.zeros(5, 2), lambda linear, x: linear(x)).shape
        torch.Size([5, 3])
    """
    if type(module) is nn.Linear:
        return layer(module, x)
    if type(module) is nn.Sequential:
        for part in module:
            x = apply_with_layers(part, x, layer)
        return x
    return cast(Any, module).rowwise(x, layer) if "rowwise" in vars(type(module)) else module(x)


def stacked_weights(stack: Stack, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weights (E, C, D) and biases (E, C) of all experts in the place of a dense layer of the template."""
    weight = stack.tensor(linear, "weight")
    assert weight is not None
    return weight, stack.tensor(linear, "bias")


def outputs_of_all(pool: Pool, x: Tensor) -> Tensor:
    """The outputs of equal experts of dense layers on the same rows, (T, E, …)."""
    return apply_with_layers(pool.first, x, _Stacked(pool.stack) if pool.stack is not None else _Listed(pool.modules))


class _Columns(ABC):
    """A dense layer of all experts: of the rows as they come at first, then of each expert's own column."""

    def __init__(self, experts: int):
        self.experts, self.begun = experts, False

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        if self.begun:
            return self.each(linear, x)
        self.begun = True
        return F.linear(x, *self.joined(linear)).unflatten(-1, (self.experts, -1)).movedim(-2, 1)

    @abstractmethod
    def joined(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """The weights and the biases of all experts one beneath another: a single product for shared rows."""

    @abstractmethod
    def each(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """Layer e of the rows of expert e, for all e: (T, E, …, D) → (T, E, …, C)."""


class _Stacked(_Columns):
    def __init__(self, stack: Stack):
        super().__init__(len(stack))
        self.stack = stack

    def joined(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        weight, bias = stacked_weights(self.stack, linear)
        return weight.flatten(0, 1), None if bias is None else bias.flatten()

    def each(self, linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(self.stack, linear)
        by_expert = x.transpose(0, 1)
        rows = by_expert.flatten(1, -2)
        if bias is None:
            y = torch.bmm(rows, weight.transpose(1, 2))
        else:
            y = torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2))
        return y.unflatten(1, by_expert.shape[1:-1]).transpose(0, 1)


class _Listed(_Columns):
    def __init__(self, experts: list[nn.Module]):
        super().__init__(len(experts))
        parts = zip(*(expert.modules() for expert in experts), strict=True)
        self.layers = {same[0]: cast(list[nn.Linear], list(same)) for same in parts if type(same[0]) is nn.Linear}

    def joined(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        layers = self.layers[linear]
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return torch.cat([layer.weight for layer in layers]), bias

    def each(self, linear: nn.Linear, x: Tensor) -> Tensor:
        # One batched product would need the weights stacked anew in every step and the values laid out by expert: on
        # CPUs that costs as much as it saves, and more for wide layers.
        return torch.stack([layer(rows) for layer, rows in zip(self.layers[linear], x.unbind(1), strict=True)], 1)
