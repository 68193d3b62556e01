"""The Spec: what a model is made of, as plain values – the kinds of its parts and their arguments.

A recipe resolves to a Spec, a saved mixture and a run hold one, and `build` makes the module of one. A Spec is a
mapping {"kind": …, arguments…} in which a part inside is such a mapping too. Besides the registry's kinds there are:

- mixture: `experts`, `router`, `gate`, `combine`, `execution`.
- stack: `count` equal experts, each made of the Spec `expert`, in an `mb.Stack`.
- sequential: `parts`, one after another, in an `nn.Sequential`.
- part: the module at the path `part` inside what the Spec `of` makes; `stage` names the stage that trains it.
- None: a module or function that no registry knows: its `class`, for people, and the shapes of its `parameters`.

A module that has an earlier place too is {"same_as": that place}, a part of another room than its neighbours has a
"room", parts that have names (the gates of tasks) are {"named": {name: part}}, and a number that JSON lacks is
{"float": "-inf"}. Parts are made in the order of the Spec, which decides what random numbers each of them draws.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.stack import Stack
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kind_of
from moebius.layers.mixture import Mixture, execution_kind
from moebius.storage._argument_types import call_checked

Spec = Mapping[str, Any]
# The parts of a mixture and the rooms where their kinds are looked for, in the order in which they are made.
PARTS = {"experts": "experts", "router": "routers", "gate": "gates", "combine": "combine"}
ROOMS = (*PARTS.values(), "layers")
# Prefix of the class of a stack whose experts are of no known kind.
STACK_OF = "Stack of "
# The key of parts that have names.
NAMED = "named"


def describe(model: Any, room: str | None = None) -> dict[str, Any]:
    """The Spec of a part of a mixture, of a mixture, or of a module with mixtures inside.

    A component keeps each argument of its constructor as an attribute of the same name (or names the attribute in
    `kept_as`). The Spec has the values of these attributes, so that it holds later changes too: another temperature, a
    frozen network.

    Arguments:
        model: what to describe. A stack or an `nn.Sequential` with a part that the registry does not know has the kind
            None as a whole.
        room: where `build` will look for its kind; unless given, the part's.

    Raises:
        ArgumentError: an argument that is neither plain nor a part, or a component whose tensors were altered.

    Example:
        >>> from moebius.routers import Argmax, Heads
        >>> describe(Heads(Argmax(), heads=2))
        {'kind': 'heads', 'router': {'kind': 'argmax'}, 'heads': 2}
    """
    return _Describer().part(model, "", room or room_of(model))


def build(
    spec: Spec,
    room: str = "experts",
    supplied: Mapping[str, Any] | None = None,
    fill: Callable[[Spec, nn.Module], None] | None = None,
) -> Any:
    """Make what a Spec says.

    Arguments:
        spec: the Spec.
        room: of the outermost part.
        supplied: place → part, for all parts that are of no known kind.
        fill: receives each Spec of kind part and the whole that the part is taken from, to load its weights.

    Raises:
        ArgumentError: a component refuses a value; `argument` is the value's place in the Spec.

    Example:
        >>> build({"kind": "top_k", "k": 2}, "routers").k
        2
    """
    return _Builder(supplied or {}, fill).part(spec, "", room)


def unknown_parts(spec: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and class of every part of a Spec that is of no known kind.

    Example:
        >>> list(unknown_parts({"kind": "adapter", "network": {"kind": None, "class": "Net", "parameters": {}}}))
        [('network', 'Net')]
    """
    if isinstance(spec, Mapping) and spec.get("kind", "") is None:
        yield place, spec["class"]
    elif isinstance(spec, Mapping) and NAMED in spec:
        for name, inner in spec[NAMED].items():
            yield from unknown_parts(inner, join_path(place, name))
    elif isinstance(spec, Mapping | list):
        for name, inner in spec.items() if isinstance(spec, Mapping) else enumerate(spec):
            yield from unknown_parts(inner, join_path(place, str(name)))


def room_of(part: Any) -> str:
    """The room of a component; experts for a mixture and for what no room knows."""
    room_and_kind = _kind(part)
    return room_and_kind[0] if room_and_kind else "experts"


def join_path(place: str, name: str) -> str:
    """The place of a part inside another; the outermost is at ""."""
    return f"{place}.{name}" if place else name


def plain_value(value: Any) -> Any:
    """A number, a text, None or a list of these as a Spec has it.

    Example:
        >>> plain_value((1, -math.inf))
        [1, {'float': '-inf'}]
    """
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _kind(part: Any) -> tuple[str, str] | None:
    """Room and kind of a component; None for all else, subclasses of one among it."""
    room_and_kind = kind_of(type(part))
    return room_and_kind if room_and_kind is not None and room_and_kind[0] in ROOMS else None


class _Describer:
    def __init__(self):
        self.places: dict[int, str] = {}
        # Views of experts, kept alive: a later object could have the id of one that is gone.
        self.views: list[nn.Module] = []

    def part(self, part: Any, place: str, room: str) -> dict[str, Any]:
        if isinstance(part, nn.Module):
            first = self.places.setdefault(id(part), place)
            if first != place:
                return {"same_as": first}
        if type(part) is Mixture:
            parts = {name: self.value(getattr(part, name), join_path(place, name), PARTS[name]) for name in PARTS}
            return {"kind": "mixture", **parts, "execution": _execution(part.execution)}
        if isinstance(part, Stack):
            return self.stack(part, place, room)
        if type(part) is nn.Sequential and list(part._modules) == [str(number) for number in range(len(part))]:
            return self.sequential(part, place, room)
        room_and_kind = _kind(part)
        if room_and_kind is None:
            name = part.__name__ if inspect.isroutine(part) else type(part).__name__
            return {"kind": None, "class": name, "parameters": _shapes(part)}
        own_room, kind = room_and_kind
        arguments = _arguments(part)
        # The tensors of a part with others inside follow from those parts.
        if not any(callable(value) for value in arguments.values()):
            _check_unaltered(part, arguments, place)
        values = {name: self.value(value, join_path(place, name), own_room) for name, value in arguments.items()}
        return {"kind": kind, **({} if own_room == room else {"room": own_room}), **values}

    def stack(self, stack: Stack, place: str, room: str) -> dict[str, Any]:
        expert = stack[0]
        self.views.append(expert)
        spec = self.part(expert, join_path(place, "expert"), room)
        if any(unknown_parts(spec)):
            name = f"{STACK_OF}{type(expert).__name__}"
            return {"kind": None, "class": name, "parameters": _shapes(stack)}
        return {"kind": "stack", "count": len(stack), "expert": spec}

    def sequential(self, part: nn.Sequential, place: str, room: str) -> dict[str, Any]:
        before = dict(self.places)
        specs = [self.part(inner, join_path(place, name), room) for name, inner in part._modules.items()]
        if any(unknown_parts(specs)):
            self.places = before
            return {"kind": None, "class": type(part).__name__, "parameters": _shapes(part)}
        return {"kind": "sequential", "parts": specs}

    def value(self, value: Any, place: str, room: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return plain_value(value)
        if isinstance(value, list | tuple | nn.ModuleList):
            return [self.value(item, join_path(place, str(number)), room) for number, item in enumerate(value)]
        if isinstance(value, Mapping | nn.ModuleDict):
            return {NAMED: {name: self.value(item, join_path(place, name), room) for name, item in value.items()}}
        if callable(value):
            return self.part(value, place, room)
        fix = "an argument of one of these types, or a class that is not registered"
        raise ArgumentError(place, "needs to be a number, a text, a list of them or a part", value, fix)


class _Builder:
    def __init__(self, supplied: Mapping[str, Any], fill: Callable[[Spec, nn.Module], None] | None = None):
        self.supplied, self.fill = supplied, fill
        self.built: dict[str, Any] = {}

    def part(self, spec: Spec, place: str, room: str) -> Any:
        if "same_as" in spec:
            return self.built[spec["same_as"]]
        kind, room = spec["kind"], spec.get("room", room)
        if kind is None:
            part = self.supplied[place]
        elif kind == "mixture":
            parts = {
                name: self.value(value, join_path(place, name), PARTS[name])
                for name, value in spec.items()
                if name in PARTS
            }
            part = call_checked(Mixture, {**parts, "execution": spec["execution"]})
        elif kind == "stack":
            expert, at = spec["expert"], join_path(place, "expert")
            part = call_checked(Stack.of, {"make": lambda: self.part(expert, at, room), "count": spec["count"]})
        elif kind == "sequential":
            part = nn.Sequential(*self.value(spec["parts"], place, room))
        elif kind == "part":
            part = self.inner_part(spec, place)
        elif room not in ROOMS or not isinstance(kind, str):
            raise LookupError(f"no part of a mixture is of room {room!r:.80} and kind {kind!r:.80}")
        else:
            part = self.component(spec, place, room)
        self.built[place] = part
        return part

    def component(self, spec: Spec, place: str, room: str) -> Any:
        arguments = {
            name: self.value(value, join_path(place, name), room)
            for name, value in spec.items()
            if name not in ("kind", "room")
        }
        try:
            return call_checked(find(room, spec["kind"]), arguments)
        except ArgumentError as error:
            raise error.inside(place) if place else error from None

    def inner_part(self, spec: Spec, place: str) -> nn.Module:
        whole = _Builder({}, self.fill).part(spec["of"], "", "experts")
        if self.fill is not None:
            self.fill(spec, whole)
        try:
            return _inner_module(whole, spec["part"])
        except (AttributeError, IndexError):
            rule = f"stage {spec['stage']} has no part of this name"
            fix = "part: experts.0, or another module that keys of model.safetensors begin with"
            raise ArgumentError(join_path(place, "part"), rule, spec["part"], fix) from None

    def value(self, value: Any, place: str, room: str) -> Any:
        if isinstance(value, list):
            return [self.value(item, join_path(place, str(number)), room) for number, item in enumerate(value)]
        if isinstance(value, Mapping) and NAMED in value:
            return {name: self.value(item, join_path(place, name), room) for name, item in value[NAMED].items()}
        if isinstance(value, Mapping):
            return float(value["float"]) if "float" in value else self.part(value, place, room)
        return value


def _inner_module(whole: nn.Module, path: str) -> nn.Module:
    """`whole.get_submodule(path)`, also for an expert of a stack, which is then independent of the others."""
    stacks = {name: module for name, module in whole.named_modules() if isinstance(module, Stack)}
    for name, stack in stacks.items():
        number, _, rest = path.removeprefix(f"{name}.").partition(".")
        if path.startswith(f"{name}.") and number.isdigit():
            return copy.deepcopy(stack[int(number)]).get_submodule(rest)
    return whole.get_submodule(path)


def _arguments(part: Any) -> dict[str, Any]:
    kept_as = getattr(part, "kept_as", {})
    parameters = inspect.signature(type(part)).parameters.values()
    # A class without a constructor has torch's, which takes anything and ignores it.
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind not in variadic]
    arguments = {name: getattr(part, kept_as.get(name, name)) for name in names}
    if "k" in arguments:
        arguments["k"] = round(arguments["k"])  # a schedule may have left a fraction
    if "execution" in arguments:
        arguments["execution"] = _execution(arguments["execution"])
    return arguments


def _execution(execution: Any) -> str:
    # The execution is a matter of speed: the rule replaces one that the registry does not know.
    return execution if isinstance(execution, str) else execution_kind(execution) or "auto"


def _shapes(part: Any) -> dict[str, list[int]]:
    tensors = part.state_dict() if isinstance(part, nn.Module) else {}
    return {name: list(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _check_unaltered(part: Any, arguments: Mapping[str, Any], place: str) -> None:
    """Refuse a component with other tensors than its arguments make: it would not come back."""
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        fresh = _shapes(type(part)(**arguments))
    if fresh != _shapes(part):
        name = type(part).__name__
        rule = f"{name}'s arguments make the tensors {fresh}, and it was altered since"
        raise ArgumentError(place or name, rule, _shapes(part), f"a class of another name that holds such a {name}")
