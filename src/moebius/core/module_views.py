"""Modules that share all but their tensors with another one: the experts of a stack, one by one."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from moebius.core.equality import HOOKS, equal_values
from moebius.kit.errors import MoebiusError

TABLES = ("_parameters", "_buffers")
LIST = "moe.experts = torch.nn.ModuleList(moe.experts.unstacked())"
# What every module has, and values of attributes that a view shares with what it is a view of.
_INTERNAL = frozenset(vars(nn.Module()))
_SHARED = (NoneType, bool, int, float, str, torch.dtype, torch.Size, FunctionType, BuiltinFunctionType)


def tensors_of(module: nn.Module, every_name: bool = False) -> Iterator[tuple[str, nn.Module, str, str, Tensor]]:
    """Name, part, table, key and tensor of every parameter and buffer in every part.

    Arguments:
        module: whose.
        every_name: whether a part that stands in two places comes twice, as in a state dict.

    Example:
        >>> [name for name, *_ in tensors_of(nn.Sequential(nn.Linear(2, 3)))]
        ['0.weight', '0.bias']
    """
    for path, part in module.named_modules(remove_duplicate=not every_name):
        for table in TABLES:
            for key, tensor in getattr(part, table).items():
                if tensor is not None:
                    yield f"{path}.{key}" if path else key, part, table, key, tensor


def module_view(module: nn.Module, tensors: Sequence[Tensor], quick: bool | None = None) -> nn.Module:
    """The module with other tensors, in the order of `tensors_of`: of the same classes, in no memory of its own.

    Arguments:
        module: what it is a view of.
        tensors: its own.
        quick: what `is_plain(module)` says, where it was asked already.
    """
    if is_plain(module) if quick is None else quick:
        return _shell(module, iter(tensors), {})
    # Attributes that hold parts or tensors under other names than those of the tables follow, too.
    memo = {id(old): new for (*_, old), new in zip(tensors_of(module), tensors, strict=True)}
    with _plain(module):
        return copy.deepcopy(module, memo)


def guarded_view(module: nn.Module, tensors: Sequence[Tensor], number: int) -> nn.Module:
    """A view for people to hold: it knows what it was, keeps hooks of its own, and refuses what it would only lose."""
    expert = module_view(module, tensors)
    for path, part in expert.named_modules():
        own = vars(part)
        own.update({name: value.copy() for name, value in own.items() if isinstance(value, OrderedDict)})
        place = f"experts.{number}.{path}".removesuffix(".")
        own["_methods"] = {
            "requires_grad_": partial(_refuse, place, "be frozen or trained", "moe.experts.requires_grad_(False)"),
            "_apply": partial(_moved, part, place),
            "state_dict": partial(_state, part),
            "__reduce_ex__": partial(_reduced, part),
        }
        if not path:
            own["_methods"]["apply"] = partial(_applied, expert)
        own.update(own["_methods"])
    record_tensors(expert)
    return expert


def record_tensors(expert: nn.Module, tensors: Sequence[Tensor] | None = None) -> None:
    """Note of what parts and tensors a view that is handed out consists; of other tensors, where they are given."""
    if tensors is not None:
        for (_, part, table, key, _), tensor in zip(tensors_of(expert), tensors, strict=True):
            getattr(part, table)[key] = tensor
    # Each tensor with another one on the same memory, which stays there whatever becomes of the first.
    pairs = [(tensor, tensor.detach()) for *_, tensor in tensors_of(expert)]
    vars(expert)["_origin"] = (list(expert.modules()), pairs)


def replaced_part(expert: nn.Module) -> str | None:
    """Which part or tensor of a view that was handed out is another than it was; None where none is."""
    parts, pairs = vars(expert)["_origin"]
    now, named = list(expert.named_modules()), list(tensors_of(expert))
    for (path, part), before in zip(now, [*parts, None], strict=False):
        if part is not before:
            return f"{path} is now a {type(part).__name__}"
    if len(now) != len(parts) or len(named) != len(pairs):
        return "parts of it are gone"
    for (name, *_, tensor), (before, alias) in zip(named, pairs, strict=True):
        if tensor is not before or not _in_place(tensor, alias):
            return f"{name} is another tensor"
        if tensor._backward_hooks:
            return f"{name} has a hook on its gradient, which is a part of that of all experts"
    return None


def difference_of_view(expert: nn.Module, module: nn.Module, place: str = "") -> str | None:
    """What a view at this place that was handed out has of its own, as a clause; None where it is like the module."""
    for (path, part), other in zip(expert.named_modules(), module.modules(), strict=True):
        name = f"{place}.{path}".strip(".") or type(part).__name__
        if type(part) is not type(other):
            return f"{name} is a {type(part).__name__}"
        if any(vars(part).get(hooks) for hooks in HOOKS):
            return f"{name} has hooks"
        if not equal_values(module_settings(part), module_settings(other)):
            return f"{name} has a mode or settings of its own"
    return None


def module_settings(part: nn.Module) -> dict[str, Any]:
    """A module's public attributes, its mode among them."""
    own = vars(part)
    return {name: value for name, value in own.items() if name[0] != "_" and name not in own.get("_methods", ())}


def copy_settings(module: nn.Module, expert: nn.Module) -> None:
    """Give a module the public attributes, and the modes, of a view of it."""
    for part, other in zip(module.modules(), expert.modules(), strict=True):
        vars(part).update(module_settings(other))


def independent_copy(part: nn.Module) -> nn.Module:
    """A module of its own with the values of a view, or of a part of one."""
    copies: dict[int, Tensor] = {}
    for *_, table, _, tensor in tensors_of(part):
        values = tensor.detach().clone()
        copies.setdefault(id(tensor), nn.Parameter(values, tensor.requires_grad) if table == "_parameters" else values)
    return copy.deepcopy(module_view(part, [copies[id(tensor)] for *_, tensor in tensors_of(part)]))


def hidden_tensors(module: nn.Module) -> str | None:
    """The name of an attribute that leads to parameters that are not the module's own; None where none does.

    A function that refers to a module does so for ever: in a copy it still computes with the first one's parameters.

    Example:
        >>> expert = nn.Linear(2, 3)
        >>> expert.shared = [nn.Linear(3, 3)]
        >>> hidden_tensors(expert)
        'shared'
    """
    parts = set(module.modules())
    tensors = {id(tensor) for *_, tensor in tensors_of(module)}

    def leads_away(value: Any) -> bool:
        if isinstance(value, nn.Module):
            return value not in parts and next(value.parameters(), None) is not None
        if isinstance(value, Tensor):
            return value.requires_grad and id(value) not in tensors
        if isinstance(value, FunctionType):
            return any(isinstance(bound, nn.Module | nn.Parameter) for bound in _bound(value))
        if isinstance(value, MethodType):
            return leads_away(value.__self__)
        if isinstance(value, partial):
            value = [value.func, *value.args, *value.keywords.values()]
        if isinstance(value, dict):
            value = list(value.values())
        return isinstance(value, list | tuple | set) and any(map(leads_away, value))

    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in _INTERNAL and leads_away(value):
                return f"{path}.{name}".strip(".")
    return None


def _bound(function: FunctionType) -> Iterator[Any]:
    """The values of variables around a function that it reads."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # one that has no value yet
            yield cell.cell_contents


def is_plain(module: nn.Module) -> bool:
    """Whether its attributes hold no parts and no tensors but by the tables of modules."""
    return all(map(_simple, module.modules()))


def _simple(part: nn.Module) -> bool:
    own = vars(part)
    skipped = _INTERNAL.union(own.get("_methods", ()), ("_methods", "_origin"))
    return all(name in skipped or _is_shared(value) for name, value in own.items())


def _is_shared(value: Any) -> bool:
    return isinstance(value, _SHARED) or (isinstance(value, list | tuple) and all(map(_is_shared, value)))


def _shell(part: nn.Module, tensors: Iterator[Tensor], made: dict[int, nn.Module]) -> nn.Module:
    if id(part) in made:
        return made[id(part)]
    new = made[id(part)] = object.__new__(type(part))
    # Past the modules' own way to set attributes, which takes its time.
    own = vars(new)
    own.update(vars(part))
    for name in (*own.pop("_methods", ()), "_origin"):
        own.pop(name, None)
    for table in TABLES:
        own[table] = {name: None if value is None else next(tensors) for name, value in own[table].items()}
    own["_modules"] = {name: inner and _shell(inner, tensors, made) for name, inner in own["_modules"].items()}
    return new


@contextmanager
def _plain(module: nn.Module) -> Iterator[None]:
    """Inside the block the parts of a view that was handed out are without what was added to them."""
    added = {
        part: {n: vars(part)[n] for n in (*vars(part).get("_methods", ()), "_methods", "_origin") if n in vars(part)}
        for part in module.modules()
    }
    for part, names in added.items():
        for name in names:
            del vars(part)[name]
    try:
        yield
    finally:
        for part, names in added.items():
            vars(part).update(names)


def _state(part: nn.Module, *args: Any, **options: Any) -> dict[str, Any]:
    """The state dict, with copies of what would be written with the tensors of all experts behind it."""
    state = type(part).state_dict(part, *args, **options)
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.requires_grad and value.untyped_storage().nbytes() > value.nbytes:
            state[name] = value.clone()
    return state


def _refuse(place: str, change: str, instead: str, *_: Any, **__: Any) -> NoReturn:
    rule = f"an expert of a stack is a view of the tensors that hold all of them and cannot {change} alone"
    raise MoebiusError(f"{place}: {rule}", f"{instead}    # all; or, for experts of their own: {LIST}")


def _moved(part: nn.Module, place: str, function: Callable[[Tensor], Tensor], *_: Any) -> nn.Module:
    """What `to`, `float`, `cuda` … do, where they leave all as it is."""
    if any(function(tensor) is not tensor for *_, tensor in tensors_of(part)):
        _refuse(place, "change its number format or device", "moe.experts.to(…)")
    return part


def _reduced(part: nn.Module, protocol: int) -> Any:
    """For copies and pickles: an expert by itself."""
    return independent_copy(part).__reduce_ex__(protocol)


def _applied(expert: nn.Module, function: Callable[[nn.Module], None]) -> nn.Module:
    """What `apply` does; a tensor that the function puts in the place of one has its values taken over."""
    nn.Module.apply(expert, function)
    parts, pairs = vars(expert)["_origin"]
    named = list(tensors_of(expert))
    if list(expert.modules()) == parts and len(named) == len(pairs):
        for (_, part, table, key, tensor), (before, alias) in zip(named, pairs, strict=True):
            if tensor.shape == alias.shape and not (tensor is before and _in_place(tensor, alias)):
                alias.copy_(tensor.detach())
                before.data = alias
                getattr(part, table)[key] = before
    return expert


def _in_place(tensor: Tensor, alias: Tensor) -> bool:
    """Whether a tensor is where it was, and not on memory that was put under it by `tensor.data = …`."""
    return tensor.is_meta or tensor.data_ptr() == alias.data_ptr()
