"""The cost of running a model, in multiply-adds."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.core.row_context import current_context, row_context
from moebius.execution.loop import Loop
from moebius.kit.modes import evaluation_mode
from moebius.layers.mixture import executed_by


def multiply_adds(model: nn.Module, facts: Mapping[str, int]) -> int:
    """Multiply-adds of matrix products and convolutions for one image: the mean over one black image of each domain.

    Experts that the router does not choose are not run, and count nothing.

    Arguments:
        model: the model; its parameters need values, because the routing depends on them. It is not changed.
        facts: `channels`, `size` (pixels) and `domains` of the data.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    domains = facts["domains"]
    images = torch.zeros(domains, facts["channels"], facts["size"], facts["size"], device=device)
    with evaluation_mode(model):
        return int(count_multiply_adds(model, images, {"domain": torch.arange(domains, device=device)}))


def count_multiply_adds(model: nn.Module, images: Tensor, context: Mapping[str, Tensor]) -> float:
    """Multiply-adds of matrix products and convolutions per image of a batch, in the current mode of the model.

    Arguments:
        model: the model.
        images: a batch of its inputs.
        context: context of the rows, as for a call of the model.
    """
    # Other executions may run experts that no row has chosen, or by operators that the counter does not know.
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        executed_by(model, Loop()),
        row_context(current_context().with_values(context)),
    ):
        model(images)
    return counter.get_total_flops() / 2 / len(images)
