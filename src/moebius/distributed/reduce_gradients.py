"""Reducing the gradients of parameters that several processes hold."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from moebius.distributed.layout import expert_parameters, layout_of


@torch.no_grad()
def reduce_gradients(model: nn.Module) -> None:
    """Reduce the gradients of the parameters that several processes hold, after the last backward of a step.

    Parameters outside of the experts get the sum over all processes, or the mean, as `expert_parallel` was told; those
    of experts, whose processes have exchanged rows already, that over the other dimensions of the mesh. A parameter
    without a gradient in every process stays without one. Parameters that FSDP2 shards are left to it. Every process
    has to call it, once a step.

    Arguments:
        model: what `expert_parallel` returned.

    Raises:
        MoebiusError: the model's experts were not distributed.

    Example:
        >>> reduce_gradients(torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        moebius.kit.errors.MoebiusError: the model's experts are not shared by processes
          fix: mb.distributed.expert_parallel(model, mesh)
    """
    layout = layout_of(model)
    experts = expert_parameters(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    replicated = [p for p in trainable if p not in experts and not isinstance(p, DTensor)]
    means = layout.gradients == "mean"
    _reduce(replicated, dist.group.WORLD, means)
    # FSDP2 has shards on further dimensions of the mesh.
    unsharded = [p for p in trainable if p in experts and (not isinstance(p, DTensor) or p.device_mesh.ndim == 1)]
    for group in layout.other_groups:
        _reduce(unsharded, group, means)


def _reduce(parameters: Sequence[nn.Parameter], group: Any, means: bool) -> None:
    """Reduce gradients over a group, those of one number format at once."""
    if dist.get_world_size(group) == 1 or not parameters:
        return
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    dist.all_reduce(present, dist.ReduceOp.MAX, group)
    formats: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter, is_present in zip(parameters, present.tolist(), strict=True):
        if is_present:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradient = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            formats.setdefault((gradient.dtype, gradient.device), []).append(gradient)
    for gradients in formats.values():
        joint = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(joint, group=group)
        if means:
            joint /= dist.get_world_size(group)
        for gradient, values in zip(gradients, joint.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))
