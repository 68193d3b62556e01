"""Dense layers of several modules at once under vmap, as products of row-major matrices."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.transforms import is_vmapped


def dense_layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, (…, D) → (…, C); computed as (W xᵀ)ᵀ where vmap maps over modules with rows of their own.

    The gradient of W is then a product of row-major matrices. The other way round its result is (D, C), and MKL takes
    up to 30 times as long for narrow layers.
    """
    if not (is_vmapped(weight) and is_vmapped(x)):
        return F.linear(x, weight, bias)
    product = weight @ x.flatten(0, -2).transpose(0, 1)
    product = product if bias is None else product + bias.unsqueeze(1)
    return product.transpose(0, 1).unflatten(0, x.shape[:-1])


class RowMajorLinear(nn.Linear):
    """`nn.Linear` by `dense_layer`."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output for rows (…, D)."""
        return dense_layer(input, self.weight, self.bias)


@contextmanager
def row_major(layers: Iterable[nn.Linear]) -> Iterator[None]:
    """Inside the block these layers are `RowMajorLinear`."""
    # Past the way in which modules set attributes, which is slow.
    for layer in layers:
        object.__setattr__(layer, "__class__", RowMajorLinear)
    try:
        yield
    finally:
        for layer in layers:
            object.__setattr__(layer, "__class__", nn.Linear)
