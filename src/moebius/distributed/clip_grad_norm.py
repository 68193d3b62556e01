"""The norm of gradients that processes share, and clipping by it."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from moebius.distributed.placement import copies_of
from moebius.kit.arguments import non_negative
from moebius.kit.errors import MoebiusError


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float | int,
    norm_type: float | int = 2.0,
    error_if_nonfinite: bool = False,
) -> Float[Tensor, ""]:
    """`torch.nn.utils.clip_grad_norm_` for models whose parameters are on several processes.

    The norm is that of the whole model's gradient, in all processes the same: shards add up over the processes that
    hold them, whatever mesh they are on, and what several processes hold counts once. Gradients of parameters that
    every process holds have to be reduced first. Every process has to call it.

    Arguments:
        parameters: those of the model: ordinary ones, those of unlike experts, DTensors on any mesh.
        max_norm: the largest norm, at least 0.
        norm_type: p of the p-norm; may be `math.inf`.
        error_if_nonfinite: whether to raise an error where the norm is NaN or infinite.

    Returns:
        The norm before clipping.

    Raises:
        MoebiusError: the norm is not finite, and `error_if_nonfinite`.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> clip_grad_norm_(weight, max_norm=1.0), weight.grad
        (tensor(5.), tensor([0.6000, 0.8000]))
    """
    non_negative("max_norm", max_norm)
    parameters = [parameters] if isinstance(parameters, Tensor) else [*parameters]
    is_shared = dist.is_available() and dist.is_initialized()
    processes = dist.get_world_size() if is_shared else 1
    counted = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [_local(parameter.grad) for parameter in counted if parameter.grad is not None]
    # A process that holds no gradient takes part in the sum, too.
    device = _local(parameters[0]).device if parameters else None
    sizes = torch.zeros(len(counted), dtype=torch.float64, device=device)
    if counted:
        sizes = torch.stack([_norm(gradient, norm_type).to(sizes) for gradient in gradients])
    if norm_type == torch.inf:
        total = sizes.max() if counted else sizes.sum()
        if is_shared:
            dist.all_reduce(total, dist.ReduceOp.MAX)
    else:
        copies = sizes.new_tensor([copies_of(parameter, processes) for parameter in counted])
        total = (sizes**norm_type / copies).sum()
        if is_shared:
            dist.all_reduce(total)
        total = total ** (1 / norm_type)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise MoebiusError(f"the norm of the gradients is {total.item()}", "error_if_nonfinite=False, to go on")
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient))
    return total.to(_at_least_float32(*gradients))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _norm(gradient: Tensor, norm_type: float | int) -> Tensor:
    return torch.linalg.vector_norm(gradient, norm_type, dtype=_at_least_float32(gradient))


def _at_least_float32(*gradients: Tensor) -> torch.dtype:
    return torch.float64 if any(gradient.dtype == torch.float64 for gradient in gradients) else torch.float32
