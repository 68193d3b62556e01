"""What is checked: a component, and the arguments that it is made with for the standard sample."""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import UnionType
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.expert_outputs import EXPERT_OUTPUTS
from moebius.core.routing import Router
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.routers.soft import Soft

# The standard sample: grey images of 8×8 pixels in 5 classes.
_FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 5, "outputs": 5}


@dataclass(frozen=True)
class Sample:
    """The rows that a component is checked with, and the facts that follow from them.

    Arguments:
        x: rows, (N, …): a check that needs T rows takes these in turn. None for random grey images of 8×8 pixels.
        context: side information, name → tensor (N, …); None for the number of a domain.
        experts: E.
        classes: C.
    """

    x: Tensor | None = None
    context: Mapping[str, Tensor] | None = None
    experts: int = 3
    classes: int = 5

    @property
    def facts(self) -> dict[str, int]:
        """Names of arguments that follow from the sample, and their values."""
        facts = {**_FACTS, "classes": self.classes, "outputs": self.classes}
        facts |= {"experts": self.experts, "domains": self.experts}
        if self.x is None:
            return facts
        facts["features"] = prod(self.x.shape[1:])
        if self.x.ndim == 4:
            facts |= {"channels": self.x.shape[1], "size": self.x.shape[2]}
        return facts

    def rows(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """As many rows, (T, …), the same for the same count; numbers that are no floats keep their format."""
        if self.x is None:
            return torch.rand(count, 1, 8, 8, generator=_generator(count)).to(dtype)
        x = self.x[torch.arange(count) % len(self.x)]
        return x.to(dtype) if x.is_floating_point() else x

    def side_information(self, count: int) -> dict[str, Tensor]:
        """The context of `rows(count)`."""
        if self.context is None:
            outputs = torch.randn(count, self.experts, self.classes, generator=_generator(count))
            domain = torch.randint(self.experts, (count,), generator=_generator(count))
            return {"domain": domain, EXPERT_OUTPUTS: outputs}
        return {name: value[torch.arange(count) % len(value)] for name, value in self.context.items()}


@dataclass(frozen=True)
class Subject:
    """A component under test.

    Arguments:
        room: where it belongs.
        component: the class or function; anything that makes a component when called.
        arguments: those of its arguments that the caller chose.
        sample: what the others follow from.
        kind: its name in the registry; None for one that is not registered.
    """

    room: str
    component: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sample: Sample = field(default_factory=Sample)
    kind: str | None = None

    @classmethod
    def of_kind(cls, room: str, kind: str, arguments: Mapping[str, Any] | None = None) -> "Subject":
        """A kind of a room, for the room's standard sample.

        Raises:
            UnknownKindError: the room has no such kind.
        """
        sample = Sample(experts=4, classes=3) if room == "routers" else Sample()
        return cls(room, find(room, kind), arguments or {}, sample, kind)

    def __str__(self) -> str:
        """Room and kind, for messages."""
        return f"{self.room} {self.kind or getattr(self.component, '__name__', repr(self.component))}"

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The named parameters of its constructor, or of the function."""
        parameters = inspect.signature(self.component).parameters
        return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    @property
    def annotations(self) -> dict[str, Any]:
        """The types of its parameters, as far as they can be resolved."""
        function = self.component.__init__ if inspect.isclass(self.component) else self.component
        try:
            return typing.get_type_hints(function)
        except (NameError, TypeError, AttributeError):
            return {}

    @property
    def facts(self) -> dict[str, int]:
        """Those of its arguments that follow from the sample: a name such as `features`, for a whole number."""
        facts, annotations = self.sample.facts, self.annotations
        names = [name for name in self.parameters if name in facts and name not in self.arguments]
        return {name: facts[name] for name in names if members(annotations.get(name, int)) <= {int, type(None)}}

    def all_arguments(self, **changed: Any) -> dict[str, Any]:
        """What the component is called with: the caller's arguments, facts, its `example`, and values by type.

        Raises:
            ArgumentError: nothing says what a required argument is.
        """
        stated: Any = getattr(self.component, "example", {})
        example: Any = stated(self.sample.facts) if callable(stated) else stated
        chosen = {**self.facts, **dict(example), **self.arguments}
        chosen |= {name: value for name, value in changed.items() if name in self.parameters}
        annotations = self.annotations
        for position, (name, parameter) in enumerate(self.parameters.items()):
            if name not in chosen and parameter.default is parameter.empty:
                chosen[name] = self._value(name, annotations.get(name), position)
        return {name: chosen[name] for name in self.parameters if name in chosen}

    def make(self, draw: int = 0, **changed: Any) -> Any:
        """A new component; `changed` replaces those of its arguments that it has.

        Arguments:
            draw: the seed of torch's generator, from which parameters are drawn.
            changed: other values of arguments; names that are none of its arguments are left out.
        """
        torch.manual_seed(draw)
        return self.component(**self.all_arguments(**changed))

    def takes(self, name: str) -> bool:
        """Whether it has an argument of this name."""
        return name in self.parameters

    def _value(self, name: str, annotation: Any, position: int) -> Any:
        """A value for a required argument, by its type."""
        facts, kinds = self.sample.facts, members(annotation)
        if name == "dim":
            return facts["features"]
        # Numbers differ from argument to argument, so that two that are swapped are noticed.
        for kind, value in ((bool, True), (int, 2), (float, 0.5 * (position + 1))):
            if kind in kinds and (kind is not int or float not in kinds):
                return value
        if any(isinstance(kind, type) and issubclass(kind, Router) for kind in kinds):
            return Soft()
        if name == "gate" and self.room == "gates":  # of images, as the gate around it
            return nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["experts"]))
        if name == "gate":
            return nn.Linear(facts["features"], facts["experts"])
        if nn.Module in kinds:
            return nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"]))
        if any(_holds_modules(kind) for kind in kinds):
            return [nn.Linear(facts["features"], facts["classes"]) for _ in range(facts["experts"])]
        rule = f"nothing says what {self} is to be made with for a check"
        stated = f"`example = {{{name!r}: …}}` in the component"
        fix = f"check_component({self.room!r}, {self.kind!r}, {name}=…), or {stated}"
        raise ArgumentError(name, rule, annotation, fix)


def members(annotation: Any) -> set[Any]:
    """The types that a union stands for; the type itself for one that is no union.

    Example:
        >>> members(int | None) == {int, type(None)}
        True
    """
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return set(typing.get_args(annotation))
    return {annotation}


def _holds_modules(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    iterable = isinstance(origin, type) and issubclass(origin, Iterable)
    return iterable and any(nn.Module in members(inner) for inner in typing.get_args(annotation))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
