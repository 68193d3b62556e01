"""Seeing what mixtures did, without a trace left on the modules."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn

from moebius.frame import Here, current, entered
from moebius.routing import Routing

Log = dict[str, list[Routing]]

_Recording = tuple[dict[int, str], Log, bool]
_recorders = Here(())


def outputs_wanted(module: nn.Module) -> bool:
    """Whether a recorder that watches this mixture asks for the outputs of all its experts."""
    return any(outputs and id(module) in paths for paths, _, outputs in _recorders.value)


def note(module: nn.Module, routing: Routing) -> None:
    """Hand a mixture's routing to the recorders that watch it."""
    for paths, log, _ in _recorders.value:
        path = paths.get(id(module))
        if path is not None:
            log.setdefault(path, []).append(routing)


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
        _recorders.value = (*before, (self.paths, log, outputs))
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
        recorded routing have gradients.

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
    with record(module) as log, entered(current().given(context or {})):
        return module(x), log
