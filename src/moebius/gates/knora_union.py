"""The gate that asks the nearest rows which experts are right there."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS, read_expert_outputs
from moebius.core.precision import at_least_float32
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class KnoraUnion(nn.Module):
    """An expert's weight is the number of near rows on which it is right.

    score_e = log (number of the k nearest rows on which expert e is right), −∞ for none; 0 for all where no expert is

    Near are rows for which the experts' probabilities are alike, by the Euclidean distance. The rows, and who is right
    on them, are buffers, which `keep` fills: `mb.compose` does, a recipe cannot. All experts run before the gate.

    Arguments:
        experts: E.
        classes: C, number of each expert's outputs.
        rows: N, how many rows are kept.
        neighbours: k.

    Shapes: x (T, …) and context["expert_outputs"] (T, E, C), which the mixture gives → (T, E).

    Raises:
        ArgumentError: a number below 1, more neighbours than rows, or outputs of another shape.

    Example:
        >>> gate = KnoraUnion(experts=2, classes=2, rows=2, neighbours=1)
        >>> outputs = torch.tensor([[[5.0, 0.0], [5.0, 0.0]], [[0.0, 5.0], [5.0, 0.0]]])
        >>> gate.keep(outputs, torch.tensor([[True, False], [True, True]]))
        >>> gate(torch.zeros(2, 1), {"expert_outputs": outputs})
        tensor([[0., -inf],
                [0., 0.]])

    Reference: Ko, Sabourin, Britto 2008, From Dynamic Classifier Selection to Dynamic Ensemble Selection, KNORA-U; they
    look for near inputs, and we for near outputs, as Cavalin, Sabourin, Suen 2013 do.
    """

    context_keys = (EXPERT_OUTPUTS,)
    keeps_rows = True  # useless without `keep`, so that no recipe takes it

    def __init__(self, experts: int, classes: int, rows: int = 7, neighbours: int = 7):
        super().__init__()
        self.experts, self.classes = positive_integer("experts", experts), positive_integer("classes", classes)
        self.rows, self.neighbours = positive_integer("rows", rows), positive_integer("neighbours", neighbours)
        if neighbours > rows:
            raise ArgumentError("neighbours", f"needs at most the {rows} rows", neighbours, f"neighbours={rows}")
        self.register_buffer("profiles", torch.zeros(rows, experts * classes))
        self.register_buffer("right", torch.ones(rows, experts))

    def keep(self, outputs: Float[Tensor, "N E C"], right: Tensor) -> None:
        """Keep rows.

        Arguments:
            outputs: of the experts for them.
            right: whether each expert is right, (N, E).
        """
        self.profiles.copy_(outputs.softmax(-1).flatten(1))  # type: ignore[operator]
        self.right.copy_(right.to(outputs.dtype))  # type: ignore[operator]

    def forward(self, x: Float[Tensor, "T ..."], context: Mapping[str, Any] | None = None) -> Float[Tensor, "T E"]:
        """The logarithm of the number of near rows on which each expert is right."""
        return self.score(self.near(x, context)).to(x.dtype)

    def near(self, x: Tensor, context: Mapping[str, Any] | None) -> Float[Tensor, "T K E"]:
        """Whether each expert is right on each of the nearest rows, the nearest first."""
        outputs = read_expert_outputs(context, x, self.experts)
        if outputs.shape[-1] != self.classes:
            rule = f"needs experts with {self.classes} outputs"
            raise ArgumentError("classes", rule, outputs.shape[-1], f"classes={outputs.shape[-1]}")
        profile = at_least_float32(outputs).softmax(-1).flatten(1)
        distances = torch.cdist(profile, self.profiles.to(profile.dtype))  # type: ignore[union-attr, operator]
        nearest = distances.topk(self.neighbours, largest=False).indices
        return self.right[nearest]  # type: ignore[index, return-value]

    def score(self, right: Float[Tensor, "T K E"]) -> Float[Tensor, "T E"]:
        """The scores, of who is right on the nearest rows."""
        counts = right.float().sum(1)
        return torch.where(counts.sum(1, keepdim=True) > 0, counts, 1).log()
