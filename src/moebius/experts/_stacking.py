"""One product for the same layer of several experts, whose parameters stay each expert's own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def shared_rows(layers: Sequence[nn.Linear], x: Float[Tensor, "T ... D"]) -> Float[Tensor, "T E ... C"]:
    """Layer e of the same rows, for all e: the weights one beneath the other make it a single matrix product."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).unflatten(-1, (len(layers), -1)).movedim(-2, 1)


def each_on_its_own(layers: Sequence[nn.Linear], x: Float[Tensor, "T E ... D"]) -> Float[Tensor, "T E ... C"]:
    """Layer e of the rows of expert e, for all e, as one batched product."""
    if x.ndim > 3:  # rows that are sequences
        inner = x.shape[2:-1]
        merged = x.movedim(1, -2).flatten(0, -3)
        return each_on_its_own(layers, merged).unflatten(0, (len(x), *inner)).movedim(-2, 1)
    weight_EDC = torch.stack([layer.weight for layer in layers]).mT
    x_ETD = x.transpose(0, 1)
    if layers[0].bias is None:
        return torch.bmm(x_ETD, weight_EDC).transpose(0, 1)
    bias_E1C = torch.stack([layer.bias for layer in layers]).unsqueeze(1)
    return torch.baddbmm(bias_E1C, x_ETD, weight_EDC).transpose(0, 1)
