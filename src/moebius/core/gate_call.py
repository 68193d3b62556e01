"""From a mixture's input to its routing: the gate scores the real rows, and the router selects experts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from moebius.core.module_outputs import adapter_line, describe_output
from moebius.core.processes import is_distributed
from moebius.core.routing import Router, Routing
from moebius.core.row_context import MASK_NAME, Padding, RowContext, call_with_context, calling_context, row_context
from moebius.core.row_keys import row_keys
from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class ScoredRows:
    """The real rows of a call as one batch axis of T rows, with the gate's scores for them.

    Arguments:
        x: the rows.
        scores: the gate's G numbers for each row.
        aux: further values that the gate returns for each row, by name.
        context: the row context of these rows.
        batch_shape: the batch axes of the real rows before they were flattened to T.
        padding: where the real rows stand in the call's input; None where all rows are real.
    """

    x: Shaped[Tensor, "T ..."]
    scores: Float[Tensor, "T G"]
    aux: Mapping[str, Tensor]
    context: RowContext
    batch_shape: torch.Size
    padding: Padding | None

    def route(self, router: Router, scores: Float[Tensor, "T G"]) -> Routing:
        """The router's routing for `scores` of these rows, with the gate's aux and the rows' numbers."""
        routing = router(scores, row_keys(self.x, self.context)) if router.needs_keys else router(scores)
        if self.aux:
            routing = replace(routing, aux={**self.aux, **routing.aux})
        return routing if self.context.rows is None else routing.with_rows(self.context.rows)

    def take_rows(self, x: Tensor) -> Float[Tensor, "T ..."]:
        """The same rows of another input with the call's batch axes."""
        if self.padding is not None:
            x = x.flatten(0, len(self.padding.mask_shape) - 1).index_select(0, self.padding.indices)
        return x if len(self.batch_shape) == 1 else x.flatten(0, len(self.batch_shape) - 1)

    def restore_batch(self, y: Float[Tensor, "T ..."]) -> Tensor:
        """Give the rows' outputs the batch axes of the call; the outputs of padding are 0."""
        y = y if len(self.batch_shape) == 1 else y.unflatten(0, self.batch_shape)
        y = y if self.padding is None else self.padding.restore_rows(y)
        # FSDP registers hooks on a module's outputs, and a view loses its hooks when it is changed in place.
        return torch.ops.aten._unsafe_view(y, y.shape) if is_distributed() and y._is_view() else y


def score_rows(
    gate: nn.Module,
    x: Tensor,
    context: Mapping[str, Tensor] | None,
    mask: Tensor | None,
    width: int,
    rule: str,
    fix: str | None = None,
    call: Callable[[nn.Module, Tensor], tuple[Tensor, Mapping[str, Tensor]]] | None = None,
) -> ScoredRows:
    """Call the gate on the real rows of a call.

    Arguments:
        gate: any module x → (batch…, width). A gate whose attribute `gives_aux` is true returns a pair: these scores
            and a mapping of names to further values for each row.
        x: the call's input.
        context: side information, in addition to that of the `with mb.context(…)` blocks around the call.
        mask: True for real rows; None for the mask of the blocks around the call.
        width: G, how many numbers the gate must return for each row.
        rule, fix: of the error that is raised for another width.
        call: calls the gate on the real rows, in their context, as `call_gate` does; None for `call_gate`.

    Raises:
        ArgumentError: the gate does not return one tensor (or the pair) with `width` numbers for each row, or the mask
            or the context does not fit the input.
    """
    call_context = context_of_call(gate, x, context, mask)
    real_context, x, padding = call_context.remove_padding(x)
    with row_context(real_context):
        scores, aux = (call_gate if call is None else call)(gate, x)
    if scores.shape[-1:] != (width,):
        raise ArgumentError("gate", rule, tuple(scores.shape), fix)
    batch_shape = scores.shape[:-1]
    if not batch_shape or batch_shape != x.shape[: len(batch_shape)]:
        batch_rule = f"must keep the first axes of its input, of shape {tuple(x.shape)}, as rows"
        batch_fix = f"gate=nn.Linear(features, {width})" if batch_shape else "x.unsqueeze(0), a batch of one"
        raise ArgumentError("gate", batch_rule, tuple(scores.shape), batch_fix)
    for name, value in aux.items():
        if value.shape[: len(batch_shape)] != batch_shape:
            aux_rule = f"must give {name!r} for each row, {tuple(batch_shape)}"
            raise ArgumentError("gate", aux_rule, tuple(value.shape), f"{name!r}: a tensor with these first axes")
    if len(batch_shape) > 1:
        tokens = prod(batch_shape[1:])
        real_context = real_context.repeat_rows(tokens)
        if padding is not None and call_context.rows is None:
            real_context = replace(real_context, rows=padding.token_indices(tokens))
        scores, x = scores.flatten(0, -2), x.flatten(0, len(batch_shape) - 1)
        aux = {name: value.flatten(0, len(batch_shape) - 1) for name, value in aux.items()}
    return ScoredRows(x, scores, aux, real_context, batch_shape, padding)


def context_of_call(
    gate: nn.Module, x: Tensor, context: Mapping[str, Tensor] | None, mask: Tensor | None
) -> RowContext:
    """The context of a call of a mixture: that of the blocks around the call, with the call's own values and mask.

    Raises:
        ArgumentError: a value has not one entry for each entry of the input's first axis.
    """
    call_context = calling_context(gate).with_values(context, mask)
    for name, value in (context or {}).items():
        if name != MASK_NAME and (not isinstance(value, Tensor) or value.shape[:1] != x.shape[:1]):
            rule = f"needs one entry for each of the {len(x)} of the input's first axis"
            raise ArgumentError(f"context[{name!r}]", rule, describe_output(value), f"a tensor of shape ({len(x)}, …)")
    return call_context


def call_gate(gate: nn.Module, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The scores and the further values that a gate returns for the rows of this call.

    Raises:
        ArgumentError: it does not return one tensor, or where its `gives_aux` is true a tensor and a mapping.
    """
    scores = call_with_context(gate, x)
    gate_class = type(gate).__name__
    aux: Mapping[str, Tensor] = {}
    if getattr(gate, "gives_aux", False):
        if not (isinstance(scores, tuple) and len(scores) == 2 and isinstance(scores[1], Mapping)):
            pair = "must give a pair, scores and a mapping, where its `gives_aux` is true"
            rule = f"{pair}; {gate_class} gives something else"
            raise ArgumentError("gate", rule, describe_output(scores), "gate.gives_aux = False")
        scores, aux = scores
    if not isinstance(scores, Tensor):
        rule = f"must give one tensor; {gate_class} gives something else"
        raise ArgumentError("gate", rule, describe_output(scores), adapter_line("gate", scores, len(x)))
    return scores, aux
