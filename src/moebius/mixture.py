"""`Mixture`: a gate, a router, experts and a way to combine them, as one ordinary module."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.combine.weighted_sum import WeightedSum
from moebius.errors import ArgumentError
from moebius.frame import Frame, current, entered
from moebius.keys import row_keys
from moebius.recording import note, outputs_wanted
from moebius.registry import find
from moebius.routers.soft import Soft
from moebius.routing import Router, Routing


class Mixture(nn.Module):
    """A mixture of experts: y = combine(w(x), experts(x)), w = router(gate(x)).

    The gate scores, the router selects, the execution moves rows to experts, each expert computes, combine merges.

    Arguments:
        gate: any module x → scores (…, E), or as many numbers a row as the router wants. The batch axes are those it
            keeps: a convolutional gate on images (T, channels, height, width) gives (T, E), so rows are images; a
            linear gate on (B, S, D) gives (B, S, E), so rows are tokens. A gate whose attribute `gives_aux` is true
            gives a pair: scores, and by name what losses need of its rows, tensors whose first axes are those batch
            axes; they become part of `Routing.aux`, where the router's own keys win.
        experts: any modules, also unlike ones, also mixtures; their outputs have equal shapes.
        router: scores (T, E) → Routing; every expert for every row unless given.
        combine: (outputs, routing) → y; the weighted sum unless given.
        execution: how experts run: a kind of room `execution` ("auto", "loop", "stacked") or such a function.

    Shapes: x (batch…, features…) → (batch…, outputs…).

    Raises:
        ArgumentError: no experts; a gate whose scores are not one per row and expert, or whose aux is not per row.

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
        scores, aux = asked(self.gate, x, frame)
        wanted = self.router.gate_outputs(len(self.experts))
        if scores.shape[-1:] != (wanted,):
            rule = f"must give one score for each of the {len(self.experts)} experts"
            if wanted != len(self.experts):
                rule = f"must give {wanted} numbers a row, which {type(self.router).__name__} needs for its experts"
            raise ArgumentError("gate", rule, tuple(scores.shape), f"a gate with experts={wanted}")
        batch = scores.shape[:-1]
        if not batch or batch != x.shape[: len(batch)]:
            rule = f"must keep the first axes of its input, of shape {tuple(x.shape)}, as rows"
            raise ArgumentError("gate", rule, tuple(scores.shape), None if batch else "x.unsqueeze(0), a batch of one")
        for name, value in aux.items():
            if value.shape[: len(batch)] != batch:
                raise ArgumentError("gate", f"must give {name!r} for each row, {tuple(batch)}", tuple(value.shape))
        if len(batch) > 1:
            frame = frame.repeated(prod(batch[1:]))
            scores, x = scores.flatten(0, -2), x.flatten(0, len(batch) - 1)
            aux = {name: value.flatten(0, len(batch) - 1) for name, value in aux.items()}
        routing = self.router(scores, row_keys(x, frame)) if self.router.needs_keys else self.router(scores)
        if aux:
            routing = replace(routing, aux={**aux, **routing.aux})
        if frame.rows is not None:
            routing = routing.at(frame.rows)
        with entered(frame):
            if outputs_wanted(self):
                values, routing = self._all_outputs(x, routing)
            else:
                values = self.execution(self.experts, x, routing)
            note(self, routing)
            y = self.combine(values, routing)
        return y if len(batch) == 1 else y.unflatten(0, batch)

    def _all_outputs(self, x: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """Every expert's output for every row, kept in the routing, and of them what the router chose."""
        outputs = self.execution(self.experts, x, replace(routing, selection=None))
        routing, selection = replace(routing, outputs=outputs), routing.selection
        if selection is None:
            return outputs, routing
        values = outputs[selection.row_A, selection.expert_A]
        kept = selection.kept_A.view(-1, *[1] * (values.ndim - 1))
        return torch.where(kept, values, 0), routing


def asked(gate: nn.Module, x: Tensor, frame: Frame) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What any gate says of the rows, and what it gives losses beside that (nothing, for most)."""
    said = gate(x, frame.local()) if getattr(gate, "needs_context", False) else gate(x)
    return said if getattr(gate, "gives_aux", False) else (said, {})
