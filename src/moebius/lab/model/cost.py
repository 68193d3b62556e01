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

# Random rows of each domain.
ROWS = 16


def multiply_adds(model: nn.Module, facts: Mapping[str, Any]) -> int:
    """Multiply-adds of matrix products and convolutions for one row: the mean over random rows, as many of each domain.

    The rows are uniform in [0, 1], the same at every call. Rows of zeros would tell nothing of a gate without a bias in
    its scores, which then chooses no expert, or whichever comes first. Experts that the router does not choose are not
    run, and count nothing.

    Arguments:
        model: the model; its parameters need values, because the routing depends on them. It is not changed.
        facts: of the data, as for `build_model`.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    domains = facts["domains"] or 1
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS * domains, *row_shape(facts), generator=generator).to(device)
    with evaluation_mode(model):
        return round(count_multiply_adds(model, x, {"domain": torch.arange(len(x), device=device) % domains}))


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
