"""The linear gate that computes in float32."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.gates.linear import Linear
from moebius.kit.arguments import flatten_features


class Float32Linear(Linear):
    """The scores of a linear map of the row, computed in float32 at least whatever the format of rows and weights.

    scores = x W_Gᵀ + b

    In bf16 many scores of a row tie, and rounding chooses the experts. Here the weights stay in the model's format, and
    only the product is in float32. The scores are in float32 too, or in float64 where the weights are.

    Arguments:
        features: D, width of a row.
        experts: E, number of scores per row.
        bias: whether there is a bias b.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, E), in float32 at least.

    Raises:
        ArgumentError: features or experts below 1, or an input of another width.

    Example:
        >>> import torch
        >>> gate = Float32Linear(features=64, experts=2).bfloat16()
        >>> gate(torch.zeros(5, 64, dtype=torch.bfloat16)).dtype
        torch.float32

    Reference: Fedus, Zoph, Shazeer 2021, Switch Transformers, section 2.4 (selective precision); DeepSeek-AI 2024,
    DeepSeek-V3 Technical Report, section 3.3.1.
    """

    # A check of `moebius.testing.gates` and the reason why it does not fit.
    exempt = {  # noqa: RUF012
        "scores_every_row_for_every_expert": "its scores are in float32 at least, and not in the rows' format",
    }

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The scores of each row."""
        x, bias = flatten_features(x, self.features), self.linear.bias
        bias = bias if bias is None else at_least_float32(bias)
        return F.linear(at_least_float32(x), at_least_float32(self.linear.weight), bias)
