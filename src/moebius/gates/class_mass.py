"""The gate that goes by what a network of all classes takes a row for."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.precision import at_least_float32
from moebius.gates._masses import ExpertClasses, check_expert_classes, log_mass


class ClassMass(nn.Module):
    """An expert's score is the probability that a generalist gives to the expert's classes: nothing is trained.

    score_e = log Σ_{c ∈ C_e} softmax(network(x))_c

    With the router `soft` the weights are these probabilities, scaled to sum to 1: each class counts as often as there
    are experts that know it.

    Arguments:
        network: any classifier of all C classes, x → logits or log-probabilities (T, C); in a recipe also
            `{kind: stage, stage: NAME}`.
        expert_classes: C_e, the positions of the classes that each expert knows; None for an expert of all classes,
            whose score is 0. A recipe takes them from the experts' stages.

    Shapes: any input of the network → (T, E).

    Raises:
        ArgumentError: classes that repeat or that the network has no output for.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> generalist = nn.Linear(4, 3)
        >>> gate = ClassMass(generalist, expert_classes=[[0, 1], [2]])
        >>> gate(torch.zeros(5, 4)).exp().sum(-1).allclose(torch.ones(5))
        True

    Reference: ours.
    """

    def __init__(self, network: Any, expert_classes: ExpertClasses):
        super().__init__()
        self.network, self.expert_classes = network, check_expert_classes(expert_classes)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E"]:
        """The logarithm of the generalist's probability of each expert's classes."""
        log_probs = at_least_float32(self.network(x)).log_softmax(-1)
        return torch.stack([log_mass(log_probs, classes) for classes in self.expert_classes], -1).to(x.dtype)

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"]))
        return {"network": network, "expert_classes": [[expert] for expert in range(facts["experts"])]}
