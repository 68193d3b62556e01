"""Parameter groups for optimizers that compute many parameters at once."""

from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The parameters in groups of ordinary tensors, and of DTensors on one mesh.

    Optimizers with `foreach=True` or `fused=True` compute a group at once and refuse a mixture of these: torch's error
    is "got mixed torch.Tensor and DTensor". With these groups they compute the same as one parameter after another.

    Arguments:
        model: what `expert_parallel` returned, or FSDP2 has sharded.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.Adam(parameter_groups(nn.Linear(2, 3)), fused=True)
        >>> len(optimizer.param_groups)
        1
    """
    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault(mesh, []).append(parameter)
    return [{"params": parameters} for parameters in groups.values()]
