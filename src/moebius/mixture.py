"""`Mixture`: a gate, a router, experts and a way to combine them, as one ordinary module."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.errors import ArgumentError
from moebius.frame import current, entered
from moebius.recording import note
from moebius.registry import find
from moebius.routers.soft import Soft
from moebius.routing import Router


class Mixture(nn.Module):
    """A mixture of experts: y = combine(w(x), experts(x)), w = router(gate(x)).

    The gate scores, the router selects, the execution moves rows to experts, each expert computes, combine merges.

    Arguments:
        gate: any module x → scores (…, E). The batch axes are those it keeps: a convolutional gate on images
            (T, channels, height, width) gives (T, E), so rows are images; a linear gate on (B, S, D) gives (B, S, E),
            so rows are tokens.
        experts: any modules, also unlike ones, also mixtures; their outputs have equal shapes.
        router: scores (T, E) → Routing; every expert for every row unless given.
        combine: (outputs, routing) → y; the weighted sum unless given.
        execution: how experts run: a kind of room `execution` ("auto", "loop", "stacked") or such a function.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: no experts; a gate whose scores are not one per row and expert.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 3))])
        >>> moe(torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts.
    """

    def __init__(
        self,
        gate: nn.Module,
        experts: Iterable[nn.Module],
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
        execution: str | Callable[..., Tensor] = "auto",
    ):
        super().__init__()
        self.gate = gate
        self.experts = nn.ModuleList(experts)
        if not self.experts:
            raise ArgumentError("experts", "needs at least one expert", list(self.experts))
        self.router = Soft() if router is None else router
        self.combine = WeightedSum() if combine is None else combine
        self.execution = find("execution", execution) if isinstance(execution, str) else execution

    def forward(self, x: Float[Tensor, "..."], context: Mapping[str, Tensor] | None = None) -> Any:
        """Run the mixture.

        Arguments:
            x: rows.
            context: side information for gates that want it, first axis that of x; also `with mb.context(…)`.
        """
        frame = current() if context is None else current().given(context)
        scores = self.gate(x, frame.local()) if getattr(self.gate, "needs_context", False) else self.gate(x)
        if scores.shape[-1:] != (len(self.experts),):
            rule = f"must give one score for each of the {len(self.experts)} experts"
            raise ArgumentError("gate", rule, tuple(scores.shape), f"a gate with experts={len(self.experts)}")
        batch = scores.shape[:-1]
        if not batch or batch != x.shape[: len(batch)]:
            rule = f"must keep the first axes of its input, of shape {tuple(x.shape)}, as rows"
            raise ArgumentError("gate", rule, tuple(scores.shape), None if batch else "x.unsqueeze(0), a batch of one")
        if len(batch) > 1:
            frame = frame.repeated(prod(batch[1:]))
            scores, x = scores.flatten(0, -2), x.flatten(0, len(batch) - 1)
        routing = self.router(scores)
        if frame.rows is not None:
            routing = routing.at(frame.rows)
        note(self, routing)
        with entered(frame):
            y = self.combine(self.execution(self.experts, x, routing), routing)
        return y if len(batch) == 1 else y.unflatten(0, batch)
