"""A gate loss with its weight: from a recipe's mapping, from a function, or from a function and a weight."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.schedules import Schedule, as_schedule

Weight = float | int | Mapping[str, Any] | Schedule
LossChoice = Mapping[str, Any] | Callable[..., Tensor] | tuple[Callable[..., Tensor], Weight]

# Names of the terms that training itself reports beside those of gate losses.
RESERVED_NAMES = ("loss", "cross_entropy", "l2")
EXAMPLE = 'losses=[{"kind": "switch_balance", "weight": 0.01}, my_loss, (my_other_loss, 0.1)]'


@dataclass(frozen=True)
class GateLoss:
    """A gate loss with its weight over epochs.

    Arguments:
        name: of its term in metrics and results.
        function: routing → scalar; it also receives `expert_losses` where `loss_needs` says so.
        weight: factor in the total, over epochs.
        options: further keywords of the function, over epochs.
    """

    name: str
    function: Callable[..., Tensor]
    weight: Schedule
    options: Mapping[str, Schedule] = field(default_factory=dict)

    def at(self, epoch: float) -> Callable[..., Tensor]:
        """The function with the values that its options have at `epoch`."""
        if not self.options:
            return self.function
        return functools.partial(self.function, **{name: option(epoch) for name, option in self.options.items()})


def as_gate_losses(specs: Sequence[Any]) -> tuple[GateLoss, ...]:
    """The gate losses that `specs` stand for; see `as_gate_loss`.

    Raises:
        ArgumentError: two losses have one name, or a loss has a name that training uses itself.

    Example:
        >>> from moebius.losses import batch_entropy, z_loss
        >>> losses = as_gate_losses([{"kind": "batch_entropy", "weight": 0.1}, z_loss])
        >>> [(loss.name, loss.weight(0.0)) for loss in losses]
        [('batch_entropy', 0.1), ('z_loss', 1.0)]
    """
    losses = tuple(as_gate_loss(spec) for spec in specs)
    names = [loss.name for loss in losses]
    for name in names:
        if names.count(name) > 1:
            rule = f"names a gate loss twice: {name!r}, and metrics report each term by its name"
            fix = f'{{"kind": "{name}", …}} once, or another function name: def {name}_2(routing): …'
            raise ArgumentError("training.losses", rule, names, fix)
        if name in RESERVED_NAMES:
            rule = f"has a gate loss whose name is taken: training reports a term {name!r} of its own"
            raise ArgumentError("training.losses", rule, names, f"def gate_{name}(routing): …")
    return losses


def as_gate_loss(spec: Any) -> GateLoss:
    """The gate loss that `spec` stands for.

    Arguments:
        spec: a mapping {"kind": name or function, "weight": number or schedule, option: value or schedule …}; a
            function of a routing, and of `expert_losses` (T, E) if it declares or has a parameter of that name, whose
            weight is 1; or a pair of such a function and its weight, a number or a schedule.

    Raises:
        ArgumentError: `spec` is nothing of these.
        UnknownKindError: no loss has this kind.
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    function: Any = spec
    weight: Any = 1.0
    if isinstance(spec, tuple) and len(spec) == 2:
        function, weight = spec
    if not callable(function):
        rule = "needs mappings, functions of a routing, or pairs of a function and its weight"
        raise ArgumentError("training.losses", rule, spec, EXAMPLE)
    loss: Callable[..., Any] = function
    return GateLoss(_name_of(loss), loss, as_schedule(weight))


def _from_mapping(spec: Mapping[str, Any]) -> GateLoss:
    if "kind" not in spec:
        raise ArgumentError("training.losses", "needs a kind for each loss", dict(spec), EXAMPLE)
    kind: Any = spec["kind"]
    function: Any
    function, name = (kind, _name_of(kind)) if callable(kind) else (find("losses", kind), kind)
    options = {name: value for name, value in spec.items() if name not in ("kind", "weight")}
    fixed = {name: value for name, value in options.items() if not isinstance(value, Mapping)}
    changing = {name: as_schedule(value) for name, value in options.items() if name not in fixed}
    bound = functools.partial(function, **fixed) if fixed else function
    return GateLoss(name, bound, as_schedule(spec.get("weight", 1.0)), changing)


def _name_of(function: Callable[..., Any]) -> str:
    """The name that the function was defined with; for an object that is called, its class's name."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
