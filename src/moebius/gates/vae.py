"""The gate on the latent code of a variational autoencoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.networks import ConvNet, Dense, start_layers
from moebius.networks.conv_net import pooled_sizes


class VAE(nn.Module):
    """The scores of a dense network of the latent code of a small convolutional variational autoencoder.

    μ, ln σ² = encoder(x);  z = μ + σ ε with ε ~ N(0, I) in training, else z = μ;  scores = dense(z)

    The loss `negative_elbo` trains the code to describe the whole image, and not only what reduces the experts' errors.
    The loss needs two numbers for each row, which the gate returns with its scores, and which the mixture puts into the
    routing's `aux`:

    reconstruction = −ln p(x | z) = −Σ x ln x̂ + (1 − x) ln (1 − x̂) over pixels and channels,  x̂ = sigmoid(decoder(z))
    kl = KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ_j (μ_j² + σ_j² − 1 − ln σ_j²)

    both in nats, with one sample of z. In eval mode with gradients disabled the decoder does not run, and
    `reconstruction` is missing.

    The encoder has blocks of [3×3 convolution that keeps the size, relu, 2×2 max-pooling] and a dense layer; the
    decoder has a dense relu layer, and for each block nearest upsampling to the block's input size and a 3×3
    convolution, with relu between blocks. A pixel's value in [0, 1] is interpreted as the probability that it is 1.

    Arguments:
        channels: of the images, whose values are from 0 to 1.
        size: their height and width, in pixels; each block halves it (rounded down).
        experts: E, number of scores per image.
        filters: output channels of each block of the encoder, at least one block; the decoder has them in reverse.
        latent: width of z.
        hidden: widths of the dense relu layers between z and the scores; may be empty.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: images (T, channels, size, size) → scores (T, E), and {"reconstruction": (T,), "kl": (T,)} in float32 at
        least.

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or images of another shape.

    Example:
        >>> gate = VAE(channels=1, size=9, experts=2, filters=[4, 4], latent=3)
        >>> scores, aux = gate(torch.rand(5, 1, 9, 9))
        >>> scores.shape, aux["reconstruction"].shape, aux["kl"].shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([5]))
        >>> with torch.no_grad():
        ...     sorted(gate.eval()(torch.rand(5, 1, 9, 9))[1])
        ['kl']

    Reference: Kingma, Welling 2013, Auto-Encoding Variational Bayes, section 3 and appendices B and C.1 (with dense
    networks); study 3's `vae-gate`, whose network is not published: this one is ours.
    """

    gives_aux = True
    unit_images = True  # its likelihood is of pixels from 0 to 1

    def __init__(
        self,
        channels: int,
        size: int,
        experts: int,
        filters: Sequence[int] = (32, 64),
        latent: int = 32,
        hidden: Sequence[int] = (),
        init: str = "torch",
    ):
        super().__init__()
        self.experts, self.latent = positive_integer("experts", experts), positive_integer("latent", latent)
        self.hidden = positive_widths("hidden", hidden) if hidden else ()
        self.encoder = ConvNet(channels, size, filters, (), 2 * latent, "relu")
        self.channels, self.size, self.filters = channels, size, self.encoder.filters
        self.scores = Dense(latent, self.hidden, experts)
        self.decoder = _Decoder(channels, size, self.filters, latent)
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> tuple[Float[Tensor, "T E"], dict[str, Tensor]]:
        """The scores of each image, and the terms of the evidence lower bound of its code."""
        mean, log_variance = _to_float32(self.encoder(x)).chunk(2, -1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        z = z.to(x.dtype)
        aux = {"kl": (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2}
        if self.training or torch.is_grad_enabled():
            # Computed from logits: the logarithm of a sigmoid that underflows to 0 has no gradient.
            loss = F.binary_cross_entropy_with_logits(_to_float32(self.decoder(z)), _to_float32(x), reduction="none")
            aux["reconstruction"] = loss.flatten(1).sum(1)
        return self.scores(z), aux


class _Decoder(nn.Module):
    """Decodes codes to the logits of images."""

    def __init__(self, channels: int, size: int, filters: Sequence[int], latent: int):
        super().__init__()
        *self.sizes, self.first_size = pooled_sizes(size, filters)
        self.dense = nn.Linear(latent, filters[-1] * self.first_size**2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise([*reversed(filters), channels])
        )

    def forward(self, z: Float[Tensor, "T latent"]) -> Float[Tensor, "T channels height width"]:
        x = self.dense(z).unflatten(-1, (self.first_size, self.first_size, -1)).permute(0, 3, 1, 2)
        for convolution, size in zip(self.convolutions, reversed(self.sizes), strict=True):
            # relu before the upsampling, which repeats each value four times.
            x = convolution(F.interpolate(x.relu(), size=(size, size)))
        return x


def _to_float32(values: Tensor) -> Tensor:
    """The values in float32 at least: bf16 is too coarse for a sum over thousands of pixels."""
    return values.float() if values.itemsize < 4 else values
