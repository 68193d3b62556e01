"""A gate whose input has mean 0 and variance 1."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class Standardised(nn.Module):
    """Any gate, on inputs that are standardised: the scale of the data reaches its experts and not its scores.

    z_c = (x_c − mean_c) / √(variance_c + 1e-5)

    Mean and variance of each channel (of each feature, for rows of features) are those of the batch while training;
    in evaluation they are running averages over training batches, as in batch normalisation. Nothing here is trained.

    A gate begins with scores of about the size of its input. On raw pixels, 0 … 255, that is tens or hundreds: the
    softmax is 0 or 1 to the last bit before the first step, and passes no gradient to an expert whose weight is 0, nor
    to the gate. Such a gate ignores an expert for good, and losses on its weights have no gradient to save it by.

    Arguments:
        gate: takes x and gives the scores.
        channels: of images, (T, channels, …); None for rows of features.
        features: of rows of features, (…, features); not used for images.
        momentum: share of a batch in the running averages, in (0, 1].

    Shapes: those of `gate`: images (T, channels, height, width), or rows (…, features).

    Raises:
        ArgumentError: neither channels nor features, or a number out of range.

    Example:
        >>> import torch
        >>> from moebius.gates import Linear
        >>> gate = Standardised(Linear(features=2, experts=2), features=2)
        >>> x = torch.tensor([[0.0, 100.0], [200.0, 300.0]])
        >>> torch.allclose(gate(x), gate(x / 10), atol=1e-4)
        True

    Reference: ours; Ioffe, Szegedy 2015, Batch Normalization, for the running averages.
    """

    def __init__(
        self,
        gate: nn.Module,
        channels: int | None = None,
        features: int | None = None,
        momentum: float | int = 0.1,
    ):
        super().__init__()
        if not 0 < momentum <= 1:
            raise ArgumentError("momentum", "must be above 0 and at most 1", momentum, "momentum: 0.1")
        widths = {"channels": channels, "features": features}
        counts = [positive_integer(name, width) for name, width in widths.items() if width is not None]
        if not counts:
            raise ArgumentError("channels", "is missing, and so is features", None, "channels=1, or features=64")
        self.gate, self.channels, self.features, self.momentum = gate, channels, features, momentum
        norm: Any = nn.BatchNorm1d if channels is None else nn.BatchNorm2d
        self.norm = norm(counts[0], affine=False, momentum=momentum)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... G"]:
        """The scores of each row."""
        rows = x if self.channels is not None else x.reshape(-1, self.norm.num_features)
        if self.training and rows.numel() <= self.norm.num_features:  # a single row has no variance
            mean, variance = self.norm.running_mean, self.norm.running_var
            rows = nn.functional.batch_norm(rows, mean, variance, eps=self.norm.eps)
        else:
            rows = self.norm(rows)
        return self.gate(rows.reshape(x.shape))
