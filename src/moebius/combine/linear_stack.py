"""The combine that learns a linear map of the experts' log-probabilities."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.routing import Routing
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError


class LinearStack(nn.Module):
    """Multinomial logistic regression on what the experts say: logits that are linear in their log-probabilities.

    y_c = b_c + Σ_e w_e (z_ec + Σ_c' V_ecc' z_ec'), z_e = log softmax(y_e), none below log(floor)

    V and b are learned. They begin with 0: under equal weights the stack begins as the logarithmic opinion pool, the
    geometric mean of the experts. `training.l2` pulls V back to it. Train it on rows that the experts were not trained
    on (`rows: held_out` in a recipe); of rows that they know by heart it learns whom to believe there.

    Arguments:
        experts: E, number of experts.
        classes: C, length of the last axis of the experts' outputs.
        floor: the least probability that is told apart, above 0 and below 1.

    Arguments of the call:
        values: the experts' logits or log-probabilities, (T, E, C) without a selection, else (A, C): then the experts
            that were chosen count.
        routing: the weights; those of a gate that is not trained, such as `uniform`, keep their values.

    Returns: logits (T, C).

    Raises:
        ArgumentError: a number out of range; outputs of another number of experts or classes; weights
            per class, or several heads.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> probs = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]])
        >>> LinearStack(experts=2, classes=2)(probs.log(), Soft()(torch.zeros(1, 2))).softmax(-1).detach()
        tensor([[0.6667, 0.3333]])

    Reference: Wolpert 1992, Stacked Generalization; Ting, Witten 1999, Issues in Stacked Generalization, for
    probabilities as inputs. The weights of a gate in it are ours.
    """

    gives_log_probabilities = False
    exempt: ClassVar[Mapping[str, str]] = {
        "gives_equal_outputs_whatever_their_weights": "it is made for a number of experts"
    }

    def __init__(self, experts: int, classes: int, floor: float | int = 1e-5):
        super().__init__()
        self.experts, self.classes = positive_integer("experts", experts), positive_integer("classes", classes)
        if not 0 < floor < 1:
            raise ArgumentError("floor", "must be above 0 and below 1", floor, "floor: 1e-5")
        self.floor = floor
        maps = [nn.Linear(classes, classes, bias=False) for _ in range(experts)]
        for linear in maps:
            nn.init.zeros_(linear.weight)
        self.maps = nn.ModuleList(maps)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, values: Float[Tensor, "... C"], routing: Routing) -> Float[Tensor, "T C"]:
        """Merge the outputs of each row's experts."""
        if values.shape[-1] != self.classes:
            rule = f"must be {values.shape[-1]}, the number of the experts' outputs"
            raise ArgumentError("classes", rule, self.classes, f"classes: {values.shape[-1]}")
        if routing.weights.shape[1] != self.experts:
            rule = f"must be {routing.weights.shape[1]}, the number of the mixture's experts"
            raise ArgumentError("experts", rule, self.experts, f"experts: {routing.weights.shape[1]}")
        if routing.head_weights is not None:
            rule = "takes one weight for each expert"
            raise ArgumentError("routing", rule, tuple(routing.head_weights.shape), "router: {kind: soft}")
        values = values.float() if values.itemsize < 4 else values
        log_probs = values.log_softmax(-1).clamp(min=math.log(self.floor))
        maps = torch.stack(list(self.maps.parameters())).to(values.dtype)
        selection, bias = routing.selection, self.bias.to(values.dtype)
        if selection is None:
            mapped_TEC = log_probs + torch.einsum("tec,eoc->teo", log_probs, maps)
            return bias + (routing.weights.to(values.dtype).unsqueeze(-1) * mapped_TEC).sum(1)
        mapped_AC = log_probs + torch.einsum("ac,aoc->ao", log_probs, maps[selection.expert_A])
        weight_A = torch.where(selection.kept_A, selection.weight_A, 0).to(values.dtype)
        sums = bias.expand(len(routing.weights), -1).clone()
        return sums.index_add(0, selection.row_A, weight_A.unsqueeze(-1) * mapped_AC)
