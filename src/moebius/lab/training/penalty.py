"""The penalty on large kernels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def kernels(model: nn.Module, layers: str) -> list[Tensor]:
    """The kernels of dense and convolutional layers (or of the latter alone), each once: no biases, no norms."""
    kinds = _CONVOLUTIONS if layers == "convolutions" else (*_CONVOLUTIONS, nn.Linear)
    weights = {id(layer.weight): layer.weight for layer in model.modules() if isinstance(layer, kinds)}
    return list(weights.values())


def l2(parameters: list[Tensor]) -> Float[Tensor, ""]:
    """Σ w² over those that train now, unweighted.

    A term of the loss and not the optimizer's decay, which Adam would scale by another rule than the gradient
    (decoupled) or hide from the reported loss.

    Reference: study 3, "L2 of 1e-4·Σw² in the loss (not decoupled decay)".
    """
    training = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.stack([parameter.square().sum() for parameter in training]).sum() if training else torch.zeros(())
