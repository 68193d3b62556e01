"""The combine that is learned: a linear map of all experts' outputs."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.routing import Routing
from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32

# A log-probability below this counts as this: e⁻¹⁵ is 3·10⁻⁷.
FLOOR = -15.0


class Stacked(nn.Module):
    """y = b + Σ_e M_e a(y_e): a linear stack of the experts' outputs, whose numbers are learned.

    M_e is a matrix for each expert (`form="full"`), a number for each of its outputs (`form="diagonal"`), or one number
    (`form="scalar"`, without b). a is log_softmax with a floor of −15, so that classes that an expert does not know
    count as improbable, or the identity. It begins as the mean of a(y_e), and the gate's weights do not matter.

    Arguments:
        experts: E.
        outputs: C, of each expert.
        form: scalar, diagonal or full.
        activation: a, log_softmax or none.

    Arguments of the call:
        values: the experts' outputs, (T, E, C) without a selection.
        routing: not read but for its rows.

    Returns: (T, C), logits for outputs of classes.

    Raises:
        ArgumentError: an unknown form or activation, or a router that selects experts.

    Example:
        >>> from moebius.routers import Soft
        >>> stacked = Stacked(experts=2, outputs=1, form="scalar", activation="none")
        >>> stacked(torch.tensor([[[2.0], [4.0]]]), Soft()(torch.zeros(1, 2))).detach()
        tensor([[3.]])

    Reference: Wolpert 1992, Stacked Generalization; Breiman 1996, Stacked Regressions.
    """

    gives_log_probabilities = False
    exempt: ClassVar[Mapping[str, str]] = {
        "gives_the_same_for_all_outputs_and_for_chosen_ones": "it reads every expert's outputs",
        "leaves_out_dropped_assignments": "it reads every expert's outputs",
        "does_not_depend_on_the_order_of_experts": "each expert has numbers of its own",
        "has_the_gradients_of_finite_differences": "it takes no selection, and no gradient reaches the weights",
        "gives_equal_outputs_whatever_their_weights": "weights do not matter",
    }

    def __init__(self, experts: int, outputs: int, form: str = "full", activation: str = "log_softmax"):
        super().__init__()
        if form not in ("scalar", "diagonal", "full"):
            raise ArgumentError("form", "needs scalar, diagonal or full", form, 'form="full"')
        if activation not in ("log_softmax", "none"):
            raise ArgumentError("activation", "needs log_softmax or none", activation, 'activation="none"')
        self.experts, self.outputs = positive_integer("experts", experts), positive_integer("outputs", outputs)
        self.form, self.activation = form, activation
        shape = {"scalar": (experts,), "diagonal": (experts, outputs), "full": (experts, outputs, outputs)}[form]
        start = torch.eye(outputs).expand(shape) if form == "full" else torch.ones(shape)
        self.weight = nn.Parameter(start / experts)
        self.bias = None if form == "scalar" else nn.Parameter(torch.zeros(outputs))

    def forward(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T C"]:
        """Merge the outputs of each row's experts."""
        if routing.selection is not None:
            rule = "reads the outputs of all experts, and this router selects some"
            raise ArgumentError("combine", rule, "stacked", "router=mb.routers.Soft()")
        values = at_least_float32(values)
        if self.activation == "log_softmax":
            values = values.log_softmax(-1).clamp(min=FLOOR)
        weight = self.weight.to(values)
        if self.form == "full":
            y = torch.einsum("tec,ecd->td", values, weight)
        else:
            y = (values * (weight.unsqueeze(-1) if self.form == "scalar" else weight)).sum(1)
        return y if self.bias is None else y + self.bias.to(values)
