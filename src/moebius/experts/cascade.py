"""`Cascade`: a cheap network answers, and hands rows that it is unsure of to another one."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.precision import at_least_float32
from moebius.core.row_context import call_with_context
from moebius.kit.errors import ArgumentError


class Cascade(nn.Module):
    """y = first(x) where the first network is certain, else second(x).

    The first network runs on all rows. Rows whose confidence, the largest of softmax(first(x)), is below the threshold
    go to the second one; it does not run where there are none. In an exported or compiled graph both run on all rows.

    Arguments:
        first, second: classifiers, x → logits or log-probabilities (T, C).
        threshold: of the confidence, from 0; infinity sends all rows on.

    Shapes: any input of both networks → log-probabilities (T, C).

    Raises:
        ArgumentError: no modules, or a threshold below 0.

    Example:
        >>> cascade = Cascade(nn.Linear(4, 3), nn.Linear(4, 3), threshold=0.5)
        >>> cascade(torch.zeros(5, 4)).exp().sum(-1).allclose(torch.ones(5))
        True

    Reference: Viola, Jones 2001, Rapid Object Detection Using a Boosted Cascade of Simple Features; by the largest
    probability, Wang et al. 2018, IDK Cascades, arXiv:1706.00885.
    """

    def __init__(self, first: nn.Module, second: nn.Module, threshold: float | int):
        super().__init__()
        check_module("first", first)
        check_module("second", second)
        self.first, self.second, self.threshold = first, second, check_threshold(threshold)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T C"]:
        """The answers of each row."""
        output = call_with_context(self.first, x)
        y = log_probabilities(output)
        below = confidence(y) < self.threshold
        if torch.compiler.is_compiling():
            second = log_probabilities(call_with_context(self.second, x))
            return torch.where(below.unsqueeze(-1), second, y).to(output.dtype)
        rows = below.nonzero().squeeze(1)
        if len(rows):
            second = log_probabilities(call_with_context(self.second, x[rows]))
            y = y.index_copy(0, rows, second.to(y.dtype))
        return y.to(output.dtype)

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        networks = [nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"])) for _ in range(2)]
        return {"first": networks[0], "second": networks[1], "threshold": 0.26}  # both networks answer some rows


def confidence(output: Float[Tensor, "T C"]) -> Float[Tensor, " T"]:
    """The probability of the most probable class of each row, of logits or log-probabilities.

    Example:
        >>> confidence(torch.tensor([[0.0, 0.0]]))
        tensor([0.5000])
    """
    return log_probabilities(output).amax(-1).exp()


def log_probabilities(output: Float[Tensor, "T C"]) -> Float[Tensor, "T C"]:
    """log softmax of logits, in float32 at least."""
    return at_least_float32(output).log_softmax(-1)


def check_module(name: str, module: Any) -> None:
    """Refuse what is no module.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError(name, "needs a module", type(module).__name__, f"{name}=nn.Linear(64, 10)")


def check_threshold(threshold: float | int) -> float:
    """A threshold of a probability as a float.

    Raises:
        ArgumentError: it is below 0, or no number.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, float | int) or not threshold >= 0:
        raise ArgumentError("threshold", "needs a number of at least 0", threshold, "threshold=0.9")
    return float(threshold)
