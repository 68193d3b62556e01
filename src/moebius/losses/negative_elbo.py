"""Negative evidence lower bound of the gate's autoencoder."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.kit.arguments import non_negative
from moebius.kit.errors import ArgumentError
from moebius.losses._distribution import mean_over_rows


def negative_elbo(routing: Routing, beta: float | int = 1.0) -> Float[Tensor, ""]:
    """Is small when the code that the gate scores by describes the image well, and in few nats.

    loss = mean_i (r_i + β · KL_i),  r_i = −ln p(x_i | z_i),  KL_i = KL(q(z | x_i) ‖ p(z))

    r and KL are `aux["reconstruction"]` and `aux["kl"]` of a gate with an autoencoder, such as `vae`. With β = 1 it is
    the bound itself, above 1 the code is pressed towards independent latent numbers.

    Range [0, ∞), in nats per image: the sum over all pixels and channels, divided by nothing, so hundreds where the
    cross-entropy of the classes is about 1, which the recipe's `weight` has to even out. The minimum 0 lies where every
    pixel is 0 or 1 and told for sure by a code that knows nothing of the image; real images are above it.

    Arguments:
        routing: of a gate that gives its rows' reconstruction and kl. A `vae` gate does so while training or wherever
            gradients are wanted.
        beta: β, at least 0.

    Raises:
        ArgumentError: the gate has no autoencoder, or its decoder did not run; or β is below 0.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> aux = {"reconstruction": torch.tensor([90.0, 110.0]), "kl": torch.tensor([4.0, 6.0])}
        >>> negative_elbo(replace(Soft()(torch.zeros(2, 2)), aux=aux), beta=2)
        tensor(110.)

    Reference: Kingma, Welling 2013, Auto-Encoding Variational Bayes, equations 3 and 7, its sign changed; Higgins,
    Matthey, Pal, Burgess, Glorot, Botvinick, Mohamed, Lerchner 2017, beta-VAE: Learning Basic Visual Concepts with a
    Constrained Variational Framework, equation 4, for β.
    """
    beta = non_negative("beta", beta)
    for name in ("reconstruction", "kl"):
        if name not in routing.aux:
            rule = f"needs {name!r}, which this gate does not give, or not without gradients"
            raise ArgumentError("routing.aux", rule, sorted(routing.aux), "gate: {kind: vae}")
    return mean_over_rows(routing.aux["reconstruction"] + beta * routing.aux["kl"])
