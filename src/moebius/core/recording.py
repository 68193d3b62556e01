"""Recording what mixtures did, without leaving anything on the modules."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.activation_checkpointing import backward_number, loses_graph, replayed_value
from moebius.core.equality import named_parts
from moebius.core.routing import Routing, flatten_distinct
from moebius.core.row_context import ThreadValue, current_context, row_context
from moebius.kit.errors import ArgumentError, MoebiusError

Log = dict[str, list[Routing]]

# Module id → path, the log, whether to record outputs, and the number of the backward pass that it began in.
_active_recordings = ThreadValue(())


def is_recording() -> bool:
    """Whether some recording is active."""
    return bool(_active_recordings.value)


def is_recording_outputs(module: nn.Module) -> bool:
    """Whether an active recording of this mixture asks for the outputs of all its experts."""
    records_outputs = any(outputs and id(module) in paths for paths, _, outputs, _ in _active_recordings.value)
    return replayed_value((id(module), "outputs"), records_outputs, records_outputs)


def record_routing(module: nn.Module, routing: Routing) -> None:
    """Append a mixture's routing to the active recordings of it, once for a forward that checkpoints repeat.

    The first run of reentrant checkpointing has no graph. Its routing can be read, but its backward raises an error: a
    loss of it would silently have no gradient. A recording that begins inside a checkpoint also records the replay,
    which begins a recording of its own.
    """
    if not _active_recordings.value:
        return
    if loses_graph():
        rule = "a recorded routing has no gradient: its forward ran without a graph, under reentrant checkpointing"
        fix = "torch.utils.checkpoint.checkpoint(…, use_reentrant=False)"
        routing = without_gradients(routing, ArgumentError("use_reentrant", rule, True, fix))
    current_backward = backward_number()
    for paths, log, _, first_backward in _active_recordings.value:
        path = paths.get(id(module)) if first_backward == current_backward else None
        if path is not None:
            log.setdefault(path, []).append(routing)


def without_gradients(routing: Routing, error: MoebiusError) -> Routing:
    """A copy of the routing whose backward raises the error; two fields that are one tensor stay one tensor."""

    def refuse_gradient(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        with torch.enable_grad():
            return _RefuseBackward.apply(value.detach().requires_grad_(), error)  # type: ignore[return-value]

    values, rebuild = flatten_distinct(routing)
    return rebuild(map(refuse_gradient, values))


class _RefuseBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, error):
        ctx.error = error
        return value.view_as(value)

    @staticmethod
    def backward(ctx, *gradients):
        raise ctx.error


class Recorder:
    """Records one module many times, and looks its mixtures' paths up only once.

    Arguments:
        module: as for `record`; its parts must stay the same objects.
    """

    def __init__(self, module: nn.Module):
        self.paths = {id(part): path for path, part in named_parts(module)}

    @contextmanager
    def recording(self, outputs: bool = False, alone: bool = False) -> Iterator[Log]:
        """`record` for the recorder's module.

        Arguments:
            outputs: as for `record`.
            alone: whether recordings around the block get nothing of it.
        """
        log: Log = {}
        previous = _active_recordings.value
        outer = () if alone else previous
        _active_recordings.value = (*outer, (self.paths, log, outputs, backward_number()))
        try:
            yield log
        finally:
            _active_recordings.value = previous


def record(module: nn.Module, outputs: bool = False) -> AbstractContextManager[Log]:
    """Collect the routings of every mixture in `module` that is called inside the block.

    Arguments:
        module: a mixture, or any module that contains some.
        outputs: run all experts on all rows, whatever the router selected, and keep their outputs as
            `Routing.outputs`, for losses that compare experts. The mixture's own output stays that of the selected
            experts.

    Returns:
        Module path → one Routing for each call; the path of `module` itself is "". Nothing is detached: losses of a
        recorded routing have gradients. Activation checkpointing, which repeats calls in backward, adds no routings.
        With `use_reentrant=True` a recorded routing has no gradient, and its backward raises an error.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
        >>> with mb.record(moe) as log:
        ...     y = moe(torch.zeros(5, 4))
        >>> log[""][-1].weights.shape
        torch.Size([5, 2])
    """
    return Recorder(module).recording(outputs)


def call(module: nn.Module, x: Tensor, context: Mapping[str, Tensor] | None = None) -> tuple[Any, Log]:
    """Run `module` on `x` and return the output together with the log: `record` as a pure function.

    Arguments:
        module: a mixture, or any module that contains some.
        x: its input.
        context: side information for the gates, as in `mb.context`.

    Returns:
        (output, module path → list of Routings).
    """
    with record(module) as log, row_context(current_context().with_values(context or {})):
        return module(x), log
