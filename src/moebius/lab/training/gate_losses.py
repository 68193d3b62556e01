"""A gate loss with its weight: from a recipe's mapping, from a function, or from a function and a weight."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from torch import Tensor

from moebius.kit.registry import find
from moebius.lab.checks.components import check_component, check_keywords
from moebius.lab.checks.keywords import caller_arguments
from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import Keywords, place_of
from moebius.lab.checks.wording import raise_problems
from moebius.lab.training.described import Amount, AmountLike, Described, read_amount

# What a user may write for a gate loss.
LossLike = Mapping[str, Any] | Callable[..., Tensor] | tuple[Callable[..., Tensor], AmountLike]

# Names of the terms that training itself reports beside those of gate losses.
RESERVED_NAMES = ("loss", "cross_entropy", "l2")


class GateLoss(Keywords):
    """A gate loss: a function of room `losses`, its weight and its keywords.

    In Python the kind may also be a function of a routing, and of `expert_losses` (T, E) if it declares or has a
    parameter of that name; the function alone, or a pair of it and its weight, stands for the mapping. Keywords that
    are mappings are schedules.

    Arguments:
        kind: a kind of room losses.
        weight: factor of this loss in the objective.

    Example:
        >>> from moebius.losses import z_loss
        >>> loss = GateLoss.model_validate((z_loss, 0.1))
        >>> loss.name, loss.weight(0.0)
        ('z_loss', 0.1)
    """

    kind: Annotated[Any, place_of("kind")]
    weight: Amount = Field(default=1.0, validate_default=True)

    @classmethod
    def to_mapping(cls, value: Any) -> Any:
        """A pair of a function and its weight, or the kind alone, in a mapping."""
        is_pair = isinstance(value, tuple) and len(value) == 2 and callable(value[0])
        return {"kind": value[0], "weight": value[1]} if is_pair else super().to_mapping(value)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> list[Problem]:
        """Problems of the kind and of the keywords of its function."""
        options = {name: item for name, item in values.items() if name not in ("kind", "weight")}
        scheduled = {name: item for name, item in options.items() if isinstance(item, Mapping)}
        problems = []
        for name, item in scheduled.items():
            problems += check_component("schedules", item, (name,), construct=True)
        # A keyword that follows a schedule takes numbers: zero stands for them.
        constant = {**options, **dict.fromkeys(scheduled, 0.0)}
        kind = values.get("kind")
        if inspect.isfunction(kind):
            problems += check_keywords(kind, constant, (), caller_arguments(kind), ("weight",))
        elif "kind" in values and not callable(kind):
            problems += check_component("losses", {"kind": kind, **constant}, (), besides=("weight",))
        return problems

    @property
    def name(self) -> str:
        """The name of the term in metrics: the kind, or the name that the function was defined with."""
        kind = self.kind
        while isinstance(kind, functools.partial):
            kind = kind.func
        # An object that is called has its class's name.
        return kind if isinstance(kind, str) else getattr(kind, "__name__", type(kind).__name__)

    @functools.cached_property
    def function(self) -> Callable[..., Tensor]:
        """Routing → scalar; it also receives `expert_losses` where `loss_needs` says so."""
        function = find("losses", self.kind) if isinstance(self.kind, str) else self.kind
        constant = {name: item for name, item in self.keywords.items() if name not in self.schedules}
        return functools.partial(function, **constant) if constant else function

    @functools.cached_property
    def schedules(self) -> dict[str, Described]:
        """The keywords of the function that follow schedules."""
        return {name: read_amount(item) for name, item in self.keywords.items() if isinstance(item, Mapping)}

    def at(self, epoch: float) -> Callable[..., Tensor]:
        """The function with the values that its keywords have at `epoch`."""
        if not self.schedules:
            return self.function
        return functools.partial(self.function, **{name: value(epoch) for name, value in self.schedules.items()})

    def __repr__(self) -> str:
        return self.name


def _check_names(losses: tuple[GateLoss, ...]) -> tuple[GateLoss, ...]:
    """The losses, if each can be told from the others and from the terms of training by its name."""
    names = [loss.name for loss in losses]
    problems = []
    for place, name in enumerate(names):
        if name in names[:place]:
            rule = f"names a gate loss twice: {name!r}, and metrics report each term by its name"
            fix = f"{{kind: {name}}} once, or another function name: def {name}_2(routing): …"
            problems.append(Problem((place,), rule, names, fix))
        if name in RESERVED_NAMES:
            rule = f"has a gate loss whose name is taken: training reports a term {name!r} of its own"
            problems.append(Problem((place,), rule, names, f"def gate_{name}(routing): …"))
    raise_problems(problems)
    return losses


# One loss of each name.
GateLosses = Annotated[
    tuple[Annotated[GateLoss, place_of("loss")], ...], Field(strict=False), AfterValidator(_check_names)
]
