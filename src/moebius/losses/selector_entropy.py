"""Mean entropy of the rows' single-expert selectors."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.routing import Routing
from moebius.losses._aux import aux_value
from moebius.losses._distribution import entropy, mean_over_rows


@needs(aux=("selectors",))
def selector_entropy(routing: Routing) -> Float[Tensor, ""]:
    """The entropy of the rows' selectors: smallest when each selects one expert, so that at most k experts run.

    loss = mean_i Σ_k H(r_k(x_i)),  H(p) = −Σ_e p_e ln p_e

    r_k is the k-th selector's distribution over the experts, `aux["selectors"]`. It has no gradient where the digits of
    a selector's code are exactly 0 or 1, and needs none there.

    Range [0, K · ln E], in nats; the minimum 0 lies where every selector puts all probability on one expert, the
    maximum where all are uniform.

    Raises:
        ArgumentError: the router gives no `aux["selectors"]`.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> selectors = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
        >>> selector_entropy(replace(Soft()(torch.zeros(1, 2)), aux={"selectors": selectors}))
        tensor(0.6931)

    Reference: Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong, Chi 2021, DSelect-k: Differentiable
    Selection in the Mixture of Experts with Applications to Multi-Task Learning, the entropy regulariser, for each row.
    """
    selectors = aux_value(routing, "selectors", "router: {kind: dselect_k, k: 2}")
    return mean_over_rows(entropy(selectors).sum(-1))
