"""Cross-entropy of each expert to the mean prediction of all experts."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import needs
from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.losses._distribution import mean_over_rows
from moebius.losses._targets import expert_targets


@needs(expert_losses=True, classes=True)
def distillation(
    routing: Routing,
    expert_losses: Float[Tensor, "T E"],
    temperature: float | int = 0.0,
    balanced: int = 0,
    floor: float | int = 1.0,
) -> Float[Tensor, ""]:
    """The cross-entropy of each expert to the mean prediction of all experts; trains only the experts.

    loss = −mean_i Σ_e s_ie Σ_c t_ic · ln p_iec,  t_i = mean_e p_ie without a gradient,  p_ie = softmax(output of e)
    s_ie = (1 − floor) · h_ie + floor / E,  h as in `best_fit`

    The average of several networks is better than each of them, and here it costs nothing: losses that compare experts
    run all of them anyway. An expert that later runs alone for a row has then learned from all. With a floor of 1,
    every expert learns the average on every row; below 1, mostly the experts with a large h: give `temperature`,
    `balanced` and `floor` the values of the `best_fit` in the same objective.

    Range [0, ∞), and never below the mean entropy of t, which it reaches where each expert with a positive share
    predicts t; 0 where all experts put all probability on the same class. t is computed for each row alone: only
    `balanced` uses statistics of the batch.

    Arguments:
        routing: its `outputs` (T, E, C) are the logits of all experts.
        expert_losses: (T, E), the loss of each expert on each row; used where the floor is below 1.
        temperature: of h, at least 0.
        balanced: number of Sinkhorn iterations of h.
        floor: share of each row that all experts learn from alike, 0 to 1.

    Raises:
        ArgumentError: the routing has no outputs; whatever `best_fit` refuses.

    Example:
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> routing = replace(Soft()(torch.zeros(1, 2)), outputs=torch.zeros(1, 2, 2))  # one row, experts, classes
        >>> distillation(routing, torch.zeros(1, 2))
        tensor(0.6931)

    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, equation 1; Anil et al. 2018,
    Large Scale Distributed Neural Network Training through Online Distillation, for teachers that train at the same
    time; that the experts of one mixture teach each other, weighted by their share of the row, is ours.
    """
    if routing.outputs is None:
        fix = "with mb.record(model, outputs=True) as log: …"
        raise ArgumentError("routing.outputs", "needs the outputs of all experts", None, fix)
    log_probs = at_least_float32(routing.outputs).log_softmax(-1)
    teacher = log_probs.detach().exp().mean(1, keepdim=True)
    # 0 · −inf is NaN: a class of probability 0 for all experts has to add 0.
    cross_entropy_TE = -(teacher * torch.where(teacher > 0, log_probs, 0)).sum(-1)
    shares = expert_targets(routing, expert_losses, temperature, balanced, floor)
    return mean_over_rows((shares * cross_entropy_TE).sum(-1))


# What the checks of `moebius.testing` cannot ask of it, and why.
distillation.exempt = {  # type: ignore[attr-defined]
    "has_the_gradients_of_finite_differences": "finite differences move the target, which has no gradient"
}
