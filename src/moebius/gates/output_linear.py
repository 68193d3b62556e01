"""The linear gate of what the experts say."""

import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS, read_expert_outputs
from moebius.core.precision import at_least_float32
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class OutputLinear(nn.Module):
    """The scores of a linear map of all experts' log-probabilities.

    scores = W z + b, z = the experts' log softmax(y_e), one after another, none below log(floor)

    The mixture runs all experts before the gate, whatever the router then selects. W and b begin with 0, as the uniform
    gate: train it on rows that the experts were not trained on (`rows: held_out`), or it learns how sure they are of
    rows that they know by heart.

    Arguments:
        experts: E, number of experts and of scores per row: for routers that take one score for each.
        classes: C, number of each expert's outputs.
        floor: the least probability that is told apart, above 0 and below 1.

    Shapes: x (T, …) and context["expert_outputs"] (T, E, C), which the mixture gives → (T, E).

    Raises:
        ArgumentError: a number out of range, or outputs of another number of experts or classes.

    Example:
        >>> import torch
        >>> gate = OutputLinear(experts=2, classes=3)
        >>> gate(torch.zeros(1, 4), {"expert_outputs": torch.zeros(1, 2, 3)})
        tensor([[0., 0.]], grad_fn=<AddmmBackward0>)

    Reference: Wolpert 1992, Stacked Generalization, for a learner of others' outputs; ours as a gate.
    """

    context_keys = (EXPERT_OUTPUTS,)

    def __init__(self, experts: int, classes: int, floor: float | int = 1e-5):
        super().__init__()
        self.experts, self.classes = positive_integer("experts", experts), positive_integer("classes", classes)
        if not 0 < floor < 1:
            raise ArgumentError("floor", "must be above 0 and below 1", floor, "floor: 1e-5")
        self.floor = floor
        self.linear = nn.Linear(experts * classes, experts)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Any] | None = None) -> Float[Tensor, "T E"]:
        """The scores of each row."""
        outputs = read_expert_outputs(context, x, self.experts)
        if outputs.shape[-1] != self.classes:
            rule = f"needs experts with {self.classes} outputs"
            raise ArgumentError("classes", rule, outputs.shape[-1], f"classes={outputs.shape[-1]}")
        log_probs = at_least_float32(outputs).log_softmax(-1).clamp(min=math.log(self.floor))
        return self.linear(log_probs.flatten(1).to(self.linear.weight.dtype)).to(x.dtype)
