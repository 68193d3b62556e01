"""`Abstention`: a classifier that does not answer where it is unsure."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.row_context import call_with_context
from moebius.experts.cascade import check_module, check_threshold, log_probabilities


class Abstention(nn.Module):
    """The network's classes, and one more, the last: "no answer".

    y = (log softmax(network(x)), −∞) where the largest probability is at least the threshold, else (−∞ …, 0)

    So the class with the largest output is C for a row without an answer, in every tool and language.

    Arguments:
        network: a classifier, x → logits or log-probabilities (T, C).
        threshold: of the largest probability; above 1 there are no answers.

    Shapes: any input of the network → log-probabilities (T, C + 1).

    Raises:
        ArgumentError: no module, or a threshold below 0.

    Example:
        >>> network = Abstention(nn.Identity(), threshold=0.9)
        >>> network(torch.tensor([[5.0, 0.0], [0.1, 0.0]])).argmax(-1)
        tensor([0, 2])

    Reference: Chow 1970, On Optimum Recognition Error and Reject Tradeoff.
    """

    exempt: ClassVar[Mapping[str, str]] = {"has_the_gradients_of_finite_differences": "of −∞ there are none"}

    def __init__(self, network: nn.Module, threshold: float | int):
        super().__init__()
        check_module("network", network)
        self.network, self.threshold = network, check_threshold(threshold)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T C"]:
        """The log-probabilities of each row, those of "no answer" last."""
        output = call_with_context(self.network, x)
        y = log_probabilities(output)
        below = (y.amax(-1).exp() < self.threshold).unsqueeze(-1)
        none = torch.full_like(y[:, :1], -torch.inf)
        return torch.cat([torch.where(below, -torch.inf, y), torch.where(below, 0.0, none)], -1).to(output.dtype)

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"] - 1))
        return {"network": network, "threshold": 0.0}
