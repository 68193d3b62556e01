"""Negative evidence lower bound of the gate's autoencoder."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.kit.arguments import non_negative
from moebius.losses._aux import aux_value
from moebius.losses._distribution import mean_over_rows


@needs(aux=("reconstruction", "kl"))
def negative_elbo(routing: Routing, beta: float | int = 1.0) -> Float[Tensor, ""]:
    """The negative evidence lower bound of the gate's autoencoder: smallest when its code describes the image well.

    loss = mean_i (r_i + β · KL_i),  r_i = −ln p(x_i | z_i),  KL_i = KL(q(z | x_i) ‖ p(z))

    r and KL are `aux["reconstruction"]` and `aux["kl"]` of a gate with an autoencoder, such as `vae`. With β = 1 the
    loss is the bound itself; above 1 the latent numbers of the code become more independent.

    Range [0, ∞), in nats per image: a sum over all pixels and channels, not a mean, so it is in the hundreds where the
    cross-entropy of the classes is about 1; the recipe's `weight` has to make up for that. The minimum 0 lies where
    every pixel is 0 or 1 and is predicted with probability 1 by a code that is independent of the image; real images
    give more.

    Arguments:
        routing: its gate gives `aux["reconstruction"]` and `aux["kl"]`, one number a row each. A `vae` gate gives both
            in training mode and wherever gradients are enabled.
        beta: β, at least 0.

    Raises:
        ArgumentError: the gate has no autoencoder, its decoder did not run, or β is below 0.

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
    reconstruction, kl = (aux_value(routing, name, "gate: {kind: vae}", "gate") for name in ("reconstruction", "kl"))
    return mean_over_rows(reconstruction + beta * kl)
