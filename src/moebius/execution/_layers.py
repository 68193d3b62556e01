"""Experts computed dense layer by dense layer, for the rows of several experts at once.

Such an expert treats every row by itself, and all its parameters belong to dense layers. An execution then computes
each dense layer for the rows of all experts, and the expert's other modules run unchanged. A class declares itself such
an expert by a method `rowwise(x, layer)` beside its `forward`: it computes the same, with `layer(linear, x)` instead of
`linear(x)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from moebius.core.stack import Stack
from moebius.execution._pool import Pool
from moebius.execution._row_major import RowMajorLinear, dense_layer

Layer = Callable[[nn.Linear, Tensor], Tensor]


def apply_with_layers(module: nn.Module, x: Tensor, layer: Layer) -> Tensor:
    """The output of the module's forward, computed with `layer(linear, x)` instead of each dense layer's own call.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> apply_with_layers(network, torch.zeros(5, 2), lambda linear, x: linear(x)).shape
        torch.Size([5, 3])
    """
    if isinstance(module, nn.Linear) and type(module) in (nn.Linear, RowMajorLinear):
        return layer(module, x)
    if type(module) is nn.Sequential:
        for submodule in module:
            x = apply_with_layers(submodule, x, layer)
        return x
    return cast(Any, module).rowwise(x, layer) if "rowwise" in vars(type(module)) else module(x)


def stacked_weights(stack: Stack, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weights (E, C, D) and biases (E, C) of all experts for a dense layer of the stack's template."""
    weight = stack.tensor(linear, "weight")
    assert weight is not None
    return weight, stack.tensor(linear, "bias")


def expert_outputs(pool: Pool, x: Tensor) -> Tensor:
    """The outputs of equal experts of dense layers on the same rows, (T, E, …)."""
    layers = _StackLayers(pool.stack) if pool.stack is not None else _ListLayers(pool)
    return apply_with_layers(pool.template, x, layers)


class _ExpertLayers(ABC):
    """Computes a dense layer of all experts: the first call (T, …, D) → (T, E, …, C), later calls expert by expert."""

    def __init__(self, experts: int):
        self.experts, self.was_called = experts, False

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        if self.was_called:
            return self.apply_by_expert(linear, x)
        self.was_called = True
        return dense_layer(x, *self.concatenate(linear)).unflatten(-1, (self.experts, -1)).movedim(-2, 1)

    @abstractmethod
    def concatenate(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """Weights (E·C, D) and biases (E·C,) of all experts, for a single product with the rows that they share."""

    @abstractmethod
    def apply_by_expert(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """Layer e of the rows of expert e, for all e: (T, E, …, D) → (T, E, …, C)."""


class _StackLayers(_ExpertLayers):
    def __init__(self, stack: Stack):
        super().__init__(len(stack))
        self.stack = stack

    def concatenate(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        weight, bias = stacked_weights(self.stack, linear)
        return weight.flatten(0, 1), None if bias is None else bias.flatten()

    def apply_by_expert(self, linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = stacked_weights(self.stack, linear)
        x_by_expert = x.transpose(0, 1)
        rows = x_by_expert.flatten(1, -2)
        if bias is None:
            y = torch.bmm(rows, weight.transpose(1, 2))
        else:
            y = torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2))
        return y.unflatten(1, x_by_expert.shape[1:-1]).transpose(0, 1)


class _ListLayers(_ExpertLayers):
    def __init__(self, pool: Pool):
        super().__init__(len(pool))
        # Dense layer of the first expert → that layer of all experts.
        self.layers: dict[nn.Module, list[nn.Linear]] = {}
        for column in zip(*[structure.parts for structure in pool.structures], strict=True):
            first = column[0][1]
            if type(first) in (nn.Linear, RowMajorLinear):
                self.layers[first] = cast(list[nn.Linear], [part for _, part in column])

    def concatenate(self, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
        layers = self.layers[linear]
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return torch.cat([layer.weight for layer in layers]), bias

    def apply_by_expert(self, linear: nn.Linear, x: Tensor) -> Tensor:
        # A batched product would need the weights stacked in every step and the values ordered by expert: on CPUs this
        # costs as much as it saves, and more for wide layers.
        return torch.stack([layer(rows) for layer, rows in zip(self.layers[linear], x.unbind(1), strict=True)], 1)
