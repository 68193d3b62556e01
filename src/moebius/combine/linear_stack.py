"""The combine that learns a linear map of the experts' outputs."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.precision import at_least_float32
from moebius.core.routing import Routing
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError

FORMS = ("full", "diagonal", "scalar")
ACTIVATIONS = ("log_softmax", "none")


class LinearStack(nn.Module):
    """Outputs that are linear in the experts': for classes a multinomial logistic regression on what the experts say.

    y = b + Σ_e w_e (z_e + V_e z_e), z_e = log softmax(y_e), none below log(floor), or z_e = y_e

    V_e is a matrix, a number for each output, or one number; V and b are learned, and begin with 0. Under equal weights
    the stack begins as the logarithmic opinion pool, the geometric mean of the experts, and of quantities as their
    mean. `training.l2` pulls matrices back to it. Train it on rows that the experts were not trained on (`rows:
    held_out` in a recipe); of rows that they know by heart it learns whom to believe there.

    Arguments:
        experts: E, number of experts.
        classes: C, length of the last axis of the experts' outputs.
        floor: the least probability that is told apart, above 0 and below 1.
        form: of V_e: "full", a matrix; "diagonal", a number for each output; or "scalar", one, without b.
        activation: "log_softmax" for outputs of classes, or "none" for quantities and labels.

    Arguments of the call:
        values: the experts' outputs, (T, E, C) without a selection, else (A, C): then the experts that were chosen
            count.
        routing: the weights; those of a gate that is not trained, such as `uniform`, keep their values.

    Returns: (T, C), logits for outputs of classes.

    Raises:
        ArgumentError: a number out of range, an unknown form or activation; outputs of another number of experts or
            classes; weights per class, or several heads.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> probs = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]])
        >>> LinearStack(experts=2, classes=2)(probs.log(), Soft()(torch.zeros(1, 2))).softmax(-1).detach()
        tensor([[0.6667, 0.3333]])

    Reference: Wolpert 1992, Stacked Generalization; Breiman 1996, Stacked Regressions; Ting, Witten 1999, Issues in
    Stacked Generalization, for probabilities as inputs. The weights of a gate in it are ours.
    """

    gives_log_probabilities = False
    exempt: ClassVar[Mapping[str, str]] = {
        "gives_equal_outputs_whatever_their_weights": "it is made for a number of experts"
    }

    def __init__(
        self,
        experts: int,
        classes: int,
        floor: float | int = 1e-5,
        form: str = "full",
        activation: str = "log_softmax",
    ):
        super().__init__()
        self.experts, self.classes = positive_integer("experts", experts), positive_integer("classes", classes)
        if not 0 < floor < 1:
            raise ArgumentError("floor", "must be above 0 and below 1", floor, "floor: 1e-5")
        if form not in FORMS:
            raise ArgumentError("form", f"needs one of {', '.join(FORMS)}", form, "form: full")
        if activation not in ACTIVATIONS:
            raise ArgumentError("activation", f"needs one of {', '.join(ACTIVATIONS)}", activation, "activation: none")
        self.floor, self.form, self.activation = floor, form, activation
        if form == "full":
            maps = [nn.Linear(classes, classes, bias=False) for _ in range(experts)]
            for linear in maps:
                nn.init.zeros_(linear.weight)
            self.maps = nn.ModuleList(maps)
        else:
            self.scales = nn.Parameter(torch.zeros(experts, classes if form == "diagonal" else 1))
        self.bias = None if form == "scalar" else nn.Parameter(torch.zeros(classes))

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
        values = at_least_float32(values)
        if self.activation == "log_softmax":
            values = values.log_softmax(-1).clamp(min=math.log(self.floor))
        selection, bias = routing.selection, values.new_zeros(()) if self.bias is None else self.bias.to(values.dtype)
        if selection is None:
            mapped_TEC = values + self._map(values, None)
            return bias + (routing.weights.to(values.dtype).unsqueeze(-1) * mapped_TEC).sum(1)
        mapped_AC = values + self._map(values, selection.expert_A)
        weight_A = torch.where(selection.kept_A, selection.weight_A, 0).to(values.dtype)
        sums = bias.expand(len(routing.weights), self.classes).clone()
        return sums.index_add(0, selection.row_A, weight_A.unsqueeze(-1) * mapped_AC)

    def _map(self, values: Tensor, expert_A: Tensor | None) -> Tensor:
        """V_e z_e: of every expert (T, E, C), or of the chosen ones (A, C)."""
        if self.form != "full":
            scales = self.scales.to(values.dtype)
            return values * (scales if expert_A is None else scales[expert_A])
        maps = torch.stack([linear.weight for linear in self.maps]).to(values.dtype)  # type: ignore[misc]
        if expert_A is None:
            return torch.einsum("tec,eoc->teo", values, maps)
        return torch.einsum("ac,aoc->ao", values, maps[expert_A])
