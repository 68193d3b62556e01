"""What the experts say on average, taught to each of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Routing
from moebius.kit.errors import ArgumentError
from moebius.losses._distribution import mean_over_rows
from moebius.losses._targets import expert_targets
from moebius.routers._normalisation import at_least_float32


def distillation(
    routing: Routing,
    expert_losses: Float[Tensor, "T E"],
    temperature: float | int = 0.0,
    balanced: int = 0,
    floor: float | int = 1.0,
) -> Float[Tensor, ""]:
    """Is small when each expert alone says what all of them say on average; trains the experts alone.

    loss = −mean_i Σ_e s_ie Σ_c t_ic · ln p_iec,  t_i = mean_e p_ie without a gradient,  p_ie = softmax(output of e)
    s_ie = (1 − floor) · h_ie + floor / E,  h as in `best_fit`

    An average of networks is better than each of them, and here it costs nothing: where losses compare experts, all
    run. So the one expert that runs for a row later has learned from all. With a floor of 1, every expert learns it
    from every row; below, mostly the experts that answer for the row, with the `temperature`, `balanced` and `floor`
    of the `best_fit` that stands beside it.

    Range [0, ∞), and never below the mean entropy of t, which it is where each expert that is asked says t; 0 where all
    are sure of the same class. t is each row's own: no statistic of the batch, but for `balanced`.

    Arguments:
        routing: with the outputs (T, E, C) of all experts, logits.
        expert_losses: each expert's own loss on each row; read where the floor is below 1.
        temperature: of h, at least 0.
        balanced: number of Sinkhorn iterations of h.
        floor: share of each row that all experts learn from alike, 0 to 1.

    Raises:
        ArgumentError: the routing holds no outputs; as `best_fit`.

    Example:
        >>> from dataclasses import replace
        >>> from moebius.routers import Soft
        >>> routing = replace(Soft()(torch.zeros(1, 2)), outputs=torch.zeros(1, 2, 2))  # one row, experts, classes
        >>> distillation(routing, torch.zeros(1, 2))
        tensor(0.6931)

    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, equation 1; Anil et al. 2018,
    Large Scale Distributed Neural Network Training through Online Distillation, for teachers that learn along; that the
    experts of one mixture teach each other, by their share of the row, is ours.
    """
    if routing.outputs is None:
        fix = "with mb.record(model, outputs=True) as log: …"
        raise ArgumentError("routing.outputs", "needs the outputs of all experts", None, fix)
    log_probs = at_least_float32(routing.outputs).log_softmax(-1)
    teacher = log_probs.detach().exp().mean(1, keepdim=True)
    # 0 · −inf is no number: a class that all rule out has nothing to teach.
    each = -(teacher * torch.where(teacher > 0, log_probs, 0)).sum(-1)
    share = expert_targets(routing, expert_losses, temperature, balanced, floor)
    return mean_over_rows((share * each).sum(-1))


# What the checks of `moebius.testing` cannot ask of it, and why.
distillation.exempt = {  # type: ignore[attr-defined]
    "has_the_gradients_of_finite_differences": "finite differences move the target, which has no gradient"
}
