"""The gate that asks each expert whether a row is of its classes."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS, read_expert_outputs
from moebius.core.precision import at_least_float32
from moebius.gates._masses import ExpertClasses, check_expert_classes, log_mass


class OwnMass(nn.Module):
    """An expert's score is the probability that it gives to its own classes: nothing is trained.

    score_e = log Σ_{c ∈ C_e} p_e(c) = log(1 − p_e(none of mine))

    It is for experts that can say "none of mine": stages with `outputs: own+other`, or `Adapter(…, others=True)`.
    Experts without such an output have score 0, all alike. The mixture runs all experts before the gate, whatever the
    router then selects.

    Arguments:
        expert_classes: C_e, the positions of the classes that each expert knows; None for an expert of all classes,
            whose score is 0. A recipe takes them from the experts' stages.

    Shapes: x (T, …) and context["expert_outputs"] (T, E, C), which the mixture gives → (T, E).

    Raises:
        ArgumentError: classes that repeat or that the outputs do not have; outputs of another number of experts.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]]).log()
        >>> OwnMass(expert_classes=[[0, 1], [2]])(torch.zeros(1, 4), {"expert_outputs": outputs}).exp()
        tensor([[0.9000, 0.2000]])

    Reference: ours.
    """

    context_keys = (EXPERT_OUTPUTS,)

    def __init__(self, expert_classes: ExpertClasses):
        super().__init__()
        self.expert_classes = check_expert_classes(expert_classes)

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Any] | None = None) -> Float[Tensor, "T E"]:
        """The logarithm of each expert's probability of its own classes."""
        outputs = read_expert_outputs(context, x, len(self.expert_classes))
        log_probs = at_least_float32(outputs).log_softmax(-1)
        masses = [log_mass(log_probs[:, expert], classes) for expert, classes in enumerate(self.expert_classes)]
        return torch.stack(masses, -1).to(x.dtype)

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        return {"expert_classes": [[expert] for expert in range(facts["experts"])]}
