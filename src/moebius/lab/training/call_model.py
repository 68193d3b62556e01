"""Calling a model that is trained, whatever it is: a mixture, or a network with mixtures inside."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from moebius.core.row_context import current_context, row_context, takes_context
from moebius.lab.data.nested import map_nested
from moebius.lab.training.precision import autocast
from moebius.layers._part_inputs import part_inputs
from moebius.layers.mixture import Mixture


@dataclass(frozen=True)
class ModelCall:
    """A model, and how it is computed; calling this object calls the model.

    Arguments:
        model: a mixture, or any module with mixtures inside.
        runs: S, for a model that stands for several: its rows are those of all runs in turn.
        precision: "bf16" to compute products in it; outputs are float32 at least either way.
        channels_last: layout of the images, which convolutions are faster with.
    """

    model: nn.Module
    runs: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False

    def __call__(self, x: Any, domains: Int[Tensor, " T"]) -> Any:
        """The model's output for a batch, with gradients.

        Arguments:
            x: inputs (T, …), or a tuple or mapping of them.
            domains: (T,), the data set that each row comes from.
        """
        with self.autocast(domains.device):
            output = call_model(self.model, x, domains)
        # Small models spend their step on calls.
        return _widen(output) if isinstance(output, Tensor) else map_nested(output, _widen)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which the model, or a part of it, is computed."""
        return autocast(self.precision, device.type)


def call_model(model: nn.Module, x: Any, domains: Int[Tensor, " T"]) -> Any:
    """The model's output for a batch.

    A mixture receives {"domain": domains} as its context, and a mapping of inputs as it is: its gate and its experts
    read theirs. Any other module is called with `x` alone (a tuple of inputs in turn, a mapping by its names), and
    mixtures inside it find the domains as if `mb.context(domain=domains)` stood around the call.

    Arguments:
        model: of any class.
        x: inputs (T, …), or a tuple or mapping of them.
        domains: (T,), the data set that each row comes from.
    """
    context = {"domain": domains}
    if isinstance(model, Mixture) and (isinstance(x, Tensor) or splits_inputs(model, x)) and takes_context(type(model)):
        return model(x, context)
    with row_context(current_context().with_values(context)):
        if isinstance(x, Tensor):
            return model(x)
        return model(**x) if isinstance(x, Mapping) else model(*x)


def splits_inputs(model: nn.Module, x: Any) -> bool:
    """Whether `x` is a mapping of inputs that a mixture's gate and experts share out among them."""
    return type(model).forward is Mixture.forward and isinstance(x, Mapping) and set(x) != {"x"}


def part_input(model: nn.Module, part: nn.Module, x: Any) -> Any:
    """What a gate or an expert of the outermost mixture gets of the inputs of a batch.

    Arguments:
        model: that holds the part.
        part: a module inside the gate, or else of the experts.
        x: inputs of the model.
    """
    if not (isinstance(model, Mixture) and splits_inputs(model, x)):
        return x
    gate_x, expert_x = part_inputs(model.gate, model.experts, x)
    return gate_x if any(module is part for module in model.gate.modules()) else expert_x


def _widen(output: Tensor) -> Tensor:
    return output.float() if output.itemsize < 4 and output.is_floating_point() else output
