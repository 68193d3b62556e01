"""The gate that takes the experts that are right on all near rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.gates.knora_union import KnoraUnion


class KnoraEliminate(KnoraUnion):
    """Experts that are right on all of the k nearest rows count alike, all others nothing.

    Where none is right on all of them, the most distant row is left out, and so on; where none is right on the nearest
    row, all count alike.

    Arguments:
        experts, classes, rows, neighbours: as for `KnoraUnion`.

    Shapes: x (T, …) and context["expert_outputs"] (T, E, C), which the mixture gives → (T, E).

    Raises:
        ArgumentError: as for `KnoraUnion`.

    Example:
        >>> gate = KnoraEliminate(experts=2, classes=2, rows=2, neighbours=2)
        >>> outputs = torch.tensor([[[5.0, 0.0], [5.0, 0.0]], [[0.0, 5.0], [5.0, 0.0]]])
        >>> gate.keep(outputs, torch.tensor([[True, False], [True, True]]))
        >>> gate(torch.zeros(1, 1), {"expert_outputs": outputs[1:]})
        tensor([[0., -inf]])

    Reference: Ko, Sabourin, Britto 2008, From Dynamic Classifier Selection to Dynamic Ensemble Selection, KNORA-E; near
    outputs as in `KnoraUnion`.
    """

    def score(self, right: Float[Tensor, "T K E"]) -> Float[Tensor, "T E"]:
        """The scores, of who is right on the nearest rows."""
        runs_TE = right.float().cumprod(1).sum(1)  # the number of nearest rows without an error
        longest = runs_TE.amax(1, keepdim=True)
        return torch.where(runs_TE == longest, 0.0, -torch.inf)
