"""The router with a weight for each class and expert."""

from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.core.routing import Router, Routing
from moebius.core.safe_log import safe_log
from moebius.kit.arguments import positive_integer


class PerClass(Router):
    """Every expert sees every row, with a separate weight for each class.

    w_ce = exp(s_ce) / Σ_c'e' exp(s_c'e')       over the whole row, or
    w_ce = exp(s_ce) / Σ_e' exp(s_ce')          within each class
    weights_e = probs_e = Σ_c w_ce / Σ_ce' w_ce'

    Over the whole row Σ_e w_ce varies with c, so that the gate also weighs classes; within each class it is 1. In both
    cases a mixture of probabilities, Σ_e w_ce p_ec, does not sum to 1 over the classes in general.

    Arguments:
        classes: C, length of the last axis of the experts' outputs.
        within_class: whether each class has a softmax over its E weights, instead of one softmax over all C·E.

    Shapes: scores (T, C·E), the experts of class 0 first → Routing of T rows and E experts with `head_weights` (T, 1,
        E, C), `selection` None; `probs` and `weights` (T, E) are the average over classes, scaled so that rows sum to
        1.

    Raises:
        ArgumentError: `classes` below 1.

    Example:
        >>> import torch
        >>> routing = PerClass(classes=2)(torch.tensor([[3.0, 1.0, 1.0, 3.0]]).log())
        >>> routing.head_weights[0, 0].T  # (class, expert)
        tensor([[0.3750, 0.1250],
                [0.1250, 0.3750]])
        >>> routing.weights
        tensor([[0.5000, 0.5000]])

    Reference: study 4's second-level gates, with `within_class=False`; ours within each class.
    """

    def __init__(self, classes: int, within_class: bool = False):
        super().__init__()
        self.classes = positive_integer("classes", classes)
        self.within_class = within_class

    def gate_outputs(self, experts: int) -> int:
        """C·E."""
        return self.classes * experts

    def forward(self, scores: Float[Tensor, "T G"]) -> Routing:
        """Route every row to every expert."""
        scores_TCE = at_least_float32(scores).unflatten(-1, (self.classes, -1))
        if self.within_class:
            weights_TCE = scores_TCE.softmax(-1)
            weights = weights_TCE.mean(1)
        else:
            weights_TCE = scores_TCE.flatten(1).softmax(-1).view_as(scores_TCE)
            weights = weights_TCE.sum(1)
        head_weights = weights_TCE.transpose(1, 2).unsqueeze(1)
        return Routing(scores_TCE.mean(1), weights, weights, safe_log(weights), head_weights=head_weights)
