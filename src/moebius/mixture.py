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
from moebius.execution._sum import summing
from moebius.execution.auto import Choice, auto, choose
from moebius.execution.dense import dense
from moebius.frame import Frame, current, entered
from moebius.keys import row_keys
from moebius.recording import note, outputs_wanted
from moebius.registry import find, kinds
from moebius.routers.soft import Soft
from moebius.routing import Router, Routing
from moebius.stack import Stack


class Mixture(nn.Module):
    """A mixture of experts: y = combine(w(x), experts(x)), w = router(gate(x)).

    The gate scores, the router selects, the execution moves rows to experts, each expert computes, combine merges.

    Arguments:
        gate: any module x → scores (…, E), or as many numbers a row as the router wants. The batch axes are those it
            keeps: a convolutional gate on images (T, channels, height, width) gives (T, E), so rows are images; a
            linear gate on (B, S, D) gives (B, S, E), so rows are tokens. A gate whose attribute `gives_aux` is true
            gives a pair: scores, and by name what losses need of its rows, tensors whose first axes are those batch
            axes; they become part of `Routing.aux`, where the router's own keys win.
        experts: any modules, also unlike ones, also mixtures; their outputs have equal shapes. An `mb.Stack` is kept as
            it is: equal experts that share stacked parameters, which sparse executions want.
        router: scores (T, E) → Routing; every expert for every row unless given.
        combine: (outputs, routing) → y; the weighted sum unless given.
        execution: how experts run: a kind of room `execution`, or such a function. "auto" picks by a rule, and
            `moe.chosen(x)` says what and why.

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
        experts: Iterable[nn.Module] | Stack,
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
        execution: str | Callable[..., Tensor] = "auto",
    ):
        super().__init__()
        self.gate = gate
        self.experts = experts if isinstance(experts, Stack) else nn.ModuleList(experts)
        if not len(self.experts):
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
        frame, batch, x, routing = self._routed(x, current() if context is None else current().given(context))
        with entered(frame):
            y, seen = None, routing
            if outputs_wanted(self):
                values, routing = self._all_outputs(x, routing)
                seen = routing
            elif self._runs_all(x, routing):
                values, seen = self._unchosen_zero(x, routing)
            else:
                y = self._summed(x, routing)
                values = self.execution(self.experts, x, routing) if y is None else y
            note(self, routing)
            if y is None:
                y = self.combine(values, seen)
        return y if len(batch) == 1 else y.unflatten(0, batch)

    @torch.no_grad()
    def chosen(self, x: Float[Tensor, "..."], context: Mapping[str, Tensor] | None = None) -> Choice:
        """Which execution these rows run by, and why: a name and a sentence. Gate and router are asked, experts not.

        Example:
            >>> import moebius as mb
            >>> moe = Mixture(mb.gates.Linear(4, 2), mb.Stack([mb.experts.Linear(4, 3) for _ in range(2)]))
            >>> moe.chosen(torch.zeros(5, 4))
            Choice(name='stacked', reason='equal experts all run: one product')
        """
        _, _, x, routing = self._routed(x, current() if context is None else current().given(context))
        if self.execution is auto:
            return choose(self.experts, x, routing)
        return Choice(known_as(self.execution) or repr(self.execution), "the mixture was made with it")

    def _routed(self, x: Tensor, frame: Frame) -> tuple[Frame, torch.Size, Tensor, Routing]:
        """The frame of the rows, the batch axes that they had, the rows one beneath another, and their routing."""
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
        return frame, batch, x, routing if frame.rows is None else routing.at(frame.rows)

    def _summed(self, x: Tensor, routing: Routing) -> Tensor | None:
        """The weighted sum, if that is what is wanted and the execution can do it by itself."""
        combine = self.combine
        if not isinstance(combine, WeightedSum) or type(combine).__call__ is not WeightedSum.__call__:
            return None
        if combine.activation != "none":
            return None
        own = summing(self.execution, routing)
        return None if own is None else own(self.experts, x, routing)

    def _runs_all(self, x: Tensor, routing: Routing) -> bool:
        """Whether experts run on rows that the router did not choose them for."""
        if routing.selection is None:
            return False
        if self.execution is auto and torch.compiler.is_compiling():
            return choose(self.experts, x, routing).name == "dense"
        return self.execution is dense

    def _unchosen_zero(self, x: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """Every expert's output for every row, 0 where it was not chosen, and the routing that combine is to see.

        Of all outputs combine needs no selection, since weights are 0 where an expert was not chosen; and of T rows and
        E experts compilers and exported graphs make less than of assignments.
        """
        everyone = replace(routing, selection=None)
        outputs = self.execution(self.experts, x, everyone)
        weights = routing.weights if routing.head_weights is None else routing.head_weights.abs().sum((1, 3))
        # Not only a weight of 0: that times an infinite output would be NaN.
        chosen = (weights != 0).view(*weights.shape, *[1] * (outputs.ndim - 2))
        return torch.where(chosen, outputs, 0), everyone

    def _all_outputs(self, x: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """Every expert's output for every row, kept in the routing, and of them what the router chose."""
        outputs = self.execution(self.experts, x, replace(routing, selection=None))
        values = outputs if routing.selection is None else routing.selection.of(outputs)
        return values, replace(routing, outputs=outputs)


def asked(gate: nn.Module, x: Tensor, frame: Frame) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What any gate says of the rows, and what it gives losses beside that (nothing, for most)."""
    said = gate(x, frame.local()) if getattr(gate, "needs_context", False) else gate(x)
    return said if getattr(gate, "gives_aux", False) else (said, {})


def known_as(execution: Callable[..., Tensor]) -> str | None:
    """The name of an execution that the registry knows; None for another function."""
    name = getattr(execution, "__name__", "")
    return name if name in kinds("execution") and find("execution", name) is execution else None
