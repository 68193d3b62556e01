"""Seeing what mixtures did, without a trace left on the modules."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from moebius.core.activation_checkpointing import backward_under_way, loses_graph, replayed_value
from moebius.core.routing import Routing
from moebius.core.row_context import ThreadValue, current_context, row_context
from moebius.kit.errors import ArgumentError

Log = dict[str, list[Routing]]

# Paths of mixtures, the log, whether outputs are wanted, and the backward pass that the recorder was opened in.
_Recording = tuple[dict[int, str], Log, bool, int]
_recorders = ThreadValue(())


def is_recording_outputs(module: nn.Module) -> bool:
    """Whether a recorder that watches this mixture asks for the outputs of all its experts."""
    wanted = any(outputs and id(module) in paths for paths, _, outputs, _ in _recorders.value)
    return replayed_value((id(module), "outputs"), wanted, wanted)


def record_routing(module: nn.Module, routing: Routing) -> None:
    """Hand a mixture's routing to the recorders that watch it, once for a forward that activation checkpoints repeat.

    The first pass of reentrant checkpointing has no graph. What is recorded of it can be looked at, and refuses a
    backward: a loss of it would have no gradient, and nobody would know. A recorder inside of what is repeated sees
    the repetition, too: it is another one then.
    """
    if not _recorders.value:
        return
    if loses_graph():
        routing = _refusing(routing)
    task = backward_under_way()
    for paths, log, _, opened in _recorders.value:
        path = paths.get(id(module)) if opened == task else None
        if path is not None:
            log.setdefault(path, []).append(routing)


def _refusing(routing: Routing) -> Routing:
    """The same values, whose backward raises; what was one tensor under two names is one again."""
    made: dict[int, Tensor] = {}

    def refusing(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if id(value) not in made:
            with torch.enable_grad():
                made[id(value)] = _Refused.apply(value.detach().requires_grad_())  # type: ignore[assignment]
        return made[id(value)]

    return pytree.tree_map(refusing, routing)


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, *gradients):
        rule = (
            "a recorded routing has no gradient to give: its forward ran without a graph, under reentrant checkpointing"
        )
        raise ArgumentError("use_reentrant", rule, True, "torch.utils.checkpoint.checkpoint(…, use_reentrant=False)")


class Recorder:
    """Watches one module again and again, and finds its mixtures' paths only once.

    Arguments:
        module: as for `record`; its parts must stay the same objects.
    """

    def __init__(self, module: nn.Module):
        self.paths = {id(part): path for path, part in module.named_modules()}

    @contextmanager
    def recording(self, outputs: bool = False) -> Iterator[Log]:
        """`record`, for the module that this recorder watches."""
        log: Log = {}
        before = _recorders.value
        _recorders.value = (*before, (self.paths, log, outputs, backward_under_way()))
        try:
            yield log
        finally:
            _recorders.value = before


def record(module: nn.Module, outputs: bool = False) -> AbstractContextManager[Log]:
    """Collect the routings of every mixture in `module` that is called inside the block.

    Arguments:
        module: a mixture, or any module that holds some.
        outputs: run all experts on all rows, whatever the router chose, and keep what they say as `Routing.outputs`:
            for losses that compare experts. The mixture's own output stays that of the chosen ones.

    Returns:
        module path → one Routing per call; the path of `module` itself is "". Nothing is detached: losses of a
        recorded routing have gradients. Activation checkpointing, which repeats calls in backward, adds nothing; with
        `use_reentrant=True` it leaves a loss of a recorded routing without a gradient, so that backward refuses it.

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
        module: a mixture, or any module that holds some.
        x: its input.
        context: side information for the gates, as in `mb.context`.

    Returns:
        (output, module path → list of Routings).
    """
    with record(module) as log, row_context(current_context().with_values(context or {})):
        return module(x), log
