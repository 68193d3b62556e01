"""The same layer of several experts at once; their parameters stay each expert's own."""

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
    """Layer e of the rows of expert e, for all e.

    One batched product would need the weights stacked anew in every step and the values laid out by expert: on CPUs
    that costs as much as it saves, and more for wide layers.
    """
    return torch.stack([layer(values) for layer, values in zip(layers, x.unbind(1), strict=True)], 1)
