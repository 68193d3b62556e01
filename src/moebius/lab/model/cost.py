"""The cost of running a model, in multiply-adds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.core.row_context import current_context, row_context
from moebius.execution.loop import Loop
from moebius.kit.modes import evaluation_mode
from moebius.lab.model.shapes import row_shape
from moebius.layers.mixture import executed_by


def multiply_adds(model: nn.Module, facts: Mapping[str, Any]) -> int:
    """Multiply-adds of matrix products and convolutions for one row: the mean over one row of zeros of each domain.

    Experts that the router does not choose are not run, and count nothing.

    Arguments:
        model: the model; its parameters need values, because the routing depends on them. It is not changed.
        facts: of the data, as for `build_model`.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    domains = facts["domains"] or 1
    x = torch.zeros(domains, *row_shape(facts), device=device)
    with evaluation_mode(model):
        return int(count_multiply_adds(model, x, {"domain": torch.arange(domains, device=device)}))


def count_multiply_adds(model: nn.Module, x: Tensor, context: Mapping[str, Tensor]) -> float:
    """Multiply-adds of matrix products and convolutions per row of a batch, in the current mode of the model.

    Arguments:
        model: the model.
        x: a batch of its inputs.
        context: context of the rows, as for a call of the model.
    """
    # Other executions may run experts that no row has chosen, or by operators that the counter does not know.
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        executed_by(model, Loop()),
        row_context(current_context().with_values(context)),
    ):
        model(x)
    return counter.get_total_flops() / 2 / len(x)
