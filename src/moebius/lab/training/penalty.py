"""The penalty on large kernels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.stack import Stack

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def kernels(model: nn.Module, layers: str) -> list[Tensor]:
    """The kernels of dense and convolutional layers (or of the latter alone), each once: no biases, no norms.

    Of the experts of a `Stack`, one tensor holds those of all.
    """
    kinds = _CONVOLUTIONS if layers == "convolutions" else (*_CONVOLUTIONS, nn.Linear)
    weights = [layer.weight for layer in model.modules() if isinstance(layer, kinds)]
    for stack in (module for module in model.modules() if isinstance(module, Stack)):
        layers_in_stack = {part: names for part, names in stack.part_tensors.items() if isinstance(part, kinds)}
        weights += [stack.get_parameter(names["weight"]) for names in layers_in_stack.values()]
    return list({id(weight): weight for weight in weights}.values())


def l2(kernels: Sequence[Tensor], runs: int = 1) -> Float[Tensor, " S"]:
    """Σ w² over the kernels that train now, unweighted, of each of S runs, whose kernels are stacked: (S, …).

    A term of the loss and not the optimizer's decay, which Adam would scale by another rule than the gradient
    (decoupled) or hide from the reported loss.

    Reference: study 3, "L2 of 1e-4·Σw² in the loss (not decoupled decay)".
    """
    training = [kernel for kernel in kernels if kernel.requires_grad]
    squares = [kernel.square().reshape(runs, -1).sum(1) for kernel in training]
    return torch.stack(squares).sum(0) if squares else torch.zeros(runs)
