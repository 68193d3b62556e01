"""The gate on the latent code of a variational autoencoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.networks import ConvNet, Dense
from moebius.networks.conv_net import pooled_sizes


class VAE(nn.Module):
    """Scores are a dense network of the latent code of a small convolutional variational autoencoder of the image.

    μ, ln σ² = encoder(x);  z = μ + σ ε with ε ~ N(0, I) while training, else z = μ;  scores = dense(z)

    Trained with the loss `negative_elbo`, the code has to tell of the whole image and not just of what the experts'
    errors ask for. The loss needs two numbers of each row, which the gate gives beside its scores and which become part
    of the routing's `aux`:

    reconstruction = −ln p(x | z) = −Σ x ln x̂ + (1 − x) ln (1 − x̂) over pixels and channels,  x̂ = sigmoid(decoder(z))
    kl = KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ_j (μ_j² + σ_j² − 1 − ln σ_j²)

    both in nats, with one draw of z. Where no gradients are wanted and the gate is not training, the decoder does not
    run and `reconstruction` is left out.

    The encoder has blocks of [3×3 convolution that keeps the size, relu, 2×2 max-pooling] and a dense layer; the
    decoder a dense relu layer and for each block nearest upsampling to the size that it had, and a 3×3 convolution,
    with relu between. A pixel's value in [0, 1] is taken for the chance that it is 1.

    Arguments:
        channels: of the images, whose values are from 0 to 1.
        size: their height and width, in pixels; each block halves it (rounded down).
        experts: E, number of scores per image.
        filters: output channels of each block of the encoder, at least one block; the decoder has them in reverse.
        latent: width of z.
        hidden: widths of the dense relu layers between z and the scores, none allowed.

    Shapes: images (T, channels, size, size) → scores (T, E), and {"reconstruction": (T,), "kl": (T,)} in float32 at
        least.

    Raises:
        ArgumentError: a value out of range, an image too small for so many blocks, or images of another shape.

    Example:
        >>> gate = VAE(channels=1, size=9, experts=2, filters=[4, 4], latent=3)
        >>> scores, aux = gate(torch.rand(5, 1, 9, 9))
        >>> scores.shape, aux["reconstruction"].shape, aux["kl"].shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([5]))
        >>> with torch.no_grad():
        ...     sorted(gate.eval()(torch.rand(5, 1, 9, 9))[1])
        ['kl']

    Reference: Kingma, Welling 2013, Auto-Encoding Variational Bayes, section 3 and appendices B and C.1 (theirs is
    dense); study 3's `vae-gate`, whose network is not published, so that this one is ours.
    """

    gives_aux = True

    def __init__(
        self,
        channels: int,
        size: int,
        experts: int,
        filters: Sequence[int] = (32, 64),
        latent: int = 32,
        hidden: Sequence[int] = (),
    ):
        super().__init__()
        self.experts, self.latent = positive_integer("experts", experts), positive_integer("latent", latent)
        self.hidden = positive_widths("hidden", hidden) if hidden else ()
        self.encoder = ConvNet(channels, size, filters, (), 2 * latent, "relu")
        self.channels, self.size, self.filters = channels, size, self.encoder.filters
        self.scores = Dense(latent, self.hidden, experts)
        self.decoder = _Decoder(channels, size, self.filters, latent)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> tuple[Float[Tensor, "T E"], dict[str, Tensor]]:
        """Score each image, and say how well its code describes it."""
        mean, log_variance = _wide(self.encoder(x)).chunk(2, -1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        z = z.to(x.dtype)
        aux = {"kl": (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2}
        if self.training or torch.is_grad_enabled():
            # From the logits: the logarithm of a sigmoid that is 0 has no gradient.
            loss = F.binary_cross_entropy_with_logits(_wide(self.decoder(z)), _wide(x), reduction="none")
            aux["reconstruction"] = loss.flatten(1).sum(1)
        return self.scores(z), aux


class _Decoder(nn.Module):
    """From codes to the logits of images."""

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
            # Before the upsampling, which makes four of each value.
            x = convolution(F.interpolate(x.relu(), size=(size, size)))
        return x


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: a sum over thousands of pixels has more digits than bf16."""
    return values.float() if values.itemsize < 4 else values
