"""From a mixture's input to its routing: the gate is asked of the real rows, and the router chooses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.module_outputs import adapter_line, describe_output
from moebius.core.processes import is_distributed
from moebius.core.routing import Router, Routing
from moebius.core.row_context import MASK, Padding, RowContext, call_with_context, context_around, row_context
from moebius.core.row_keys import row_keys
from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class ScoredRows:
    """The real rows of a call, one beneath another, and what the gate said of them.

    Arguments:
        x: the rows.
        said: the gate's numbers of each.
        aux: what else it gave of each.
        frame: what is known of them.
        batch: the axes that they had.
        padding: where they stood among others; None where all are real.
    """

    x: Float[Tensor, "T ..."]
    said: Float[Tensor, "T G"]
    aux: Mapping[str, Tensor]
    frame: RowContext
    batch: torch.Size
    padding: Padding | None

    def routed(self, router: Router, scores: Float[Tensor, "T G"]) -> Routing:
        """What the router makes of scores for these rows."""
        routing = router(scores, row_keys(self.x, self.frame)) if router.needs_keys else router(scores)
        if self.aux:
            routing = replace(routing, aux={**self.aux, **routing.aux})
        return routing if self.frame.rows is None else routing.at(self.frame.rows)

    def put_back(self, y: Float[Tensor, "T ..."]) -> Tensor:
        """The rows' outputs in the axes of the call, zero where a row was padding."""
        y = y if len(self.batch) == 1 else y.unflatten(0, self.batch)
        y = y if self.padding is None else self.padding.put_back(y)
        # FSDP hooks what a module gives, and a view would lose the hook where it is changed in place.
        return torch.ops.aten._unsafe_view(y, y.shape) if is_distributed() and y._is_view() else y


def score_rows(
    gate: nn.Module,
    x: Float[Tensor, "..."],
    context: Mapping[str, Tensor] | None,
    mask: Tensor | None,
    width: int,
    rule: str,
    fix: str | None = None,
) -> ScoredRows:
    """Ask the gate of the real rows of a call.

    Arguments:
        gate: any module x → (batch…, width); one whose attribute `gives_aux` is true gives a pair, that and further
            values of each row by name.
        x: the call's input.
        context: side information beside that of the blocks around.
        mask: True for real rows; None for what the blocks around say.
        width: how many numbers the gate has to give of each row.
        rule, fix: of the error for another width.

    Raises:
        ArgumentError: the gate gives something else, or not of each row; the mask or the context does not fit.
    """
    whole = context_around(gate).given(context, mask)
    for name, value in (context or {}).items():
        if name != MASK and (not isinstance(value, Tensor) or value.shape[:1] != x.shape[:1]):
            each = f"needs one entry for each of the {len(x)} of the input's first axis"
            raise ArgumentError(f"context[{name!r}]", each, describe_output(value), f"a tensor of shape ({len(x)}, …)")
    frame, x, padding = whole.real(x)
    with row_context(frame):
        said = call_with_context(gate, x)
    kind = type(gate).__name__
    aux: Mapping[str, Tensor] = {}
    if getattr(gate, "gives_aux", False):
        if not (isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], Mapping)):
            pair = f"must give a pair, scores and a mapping, where its `gives_aux` is true; {kind} gives something else"
            raise ArgumentError("gate", pair, describe_output(said), "gate.gives_aux = False")
        said, aux = said
    if not isinstance(said, Tensor):
        one = f"must give one tensor; {kind} gives something else"
        raise ArgumentError("gate", one, describe_output(said), adapter_line("gate", said, len(x)))
    if said.shape[-1:] != (width,):
        raise ArgumentError("gate", rule, tuple(said.shape), fix)
    batch = said.shape[:-1]
    if not batch or batch != x.shape[: len(batch)]:
        kept = f"must keep the first axes of its input, of shape {tuple(x.shape)}, as rows"
        keep = "a gate that keeps them" if batch else "x.unsqueeze(0), a batch of one"
        raise ArgumentError("gate", kept, tuple(said.shape), keep)
    for name, value in aux.items():
        if value.shape[: len(batch)] != batch:
            each = f"must give {name!r} for each row, {tuple(batch)}"
            raise ArgumentError("gate", each, tuple(value.shape), f"{name!r}: a tensor with these first axes")
    if len(batch) > 1:
        times = prod(batch[1:])
        frame = frame.repeated(times)
        if padding is not None and whole.rows is None:
            frame = replace(frame, rows=padding.rows(times))
        said, x = said.flatten(0, -2), x.flatten(0, len(batch) - 1)
        aux = {name: value.flatten(0, len(batch) - 1) for name, value in aux.items()}
    return ScoredRows(x, said, aux, frame, batch, padding)
