"""The gate with equal scores for all experts."""

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer


class Uniform(nn.Module):
    """The same score for every expert: scores = 0, which softmax turns into weights of 1/E.

    It is the baseline for learned gates, and the gate of a mixture with one expert. It has no parameters.

    Arguments:
        experts: E, number of scores per row.

    Shapes: vectors (…, D) → (…, E); images (T, channels, height, width) → (T, E).

    Raises:
        ArgumentError: experts below 1.

    Example:
        >>> import torch
        >>> Uniform(experts=2)(torch.ones(3, 1, 8, 8))
        tensor([[0., 0.],
                [0., 0.],
                [0., 0.]])

    Reference: ours (the average of an ensemble).
    """

    def __init__(self, experts: int):
        super().__init__()
        self.experts = positive_integer("experts", experts)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """Scores of 0 for each row."""
        # An input of four axes is a batch of images, one row each; any other has one axis of features, the last.
        rows = x.shape[:1] if x.ndim == 4 else x.shape[:-1]
        return x.new_zeros(*rows, self.experts)
