"""Views of modules: modules that share everything with another module but their tensors.

The experts of a stack are such views of its template, one for each expert.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from moebius.core.equality import HOOK_TABLES, equal_values
from moebius.kit.errors import MoebiusError

TENSOR_TABLES = ("_parameters", "_buffers")
UNSTACK_FIX = "moe.experts = torch.nn.ModuleList(moe.experts.unstacked())"
# The attributes that every module has.
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
# Attributes that guarded views have besides: their replaced methods by name, and the parts and tensors they began with.
_METHODS, _ORIGIN = "_methods", "_origin"
# A view may share attribute values of these types with its module: they hold no tensors and no parts.
_SHARED_TYPES = (NoneType, bool, int, float, str, torch.dtype, torch.Size, FunctionType, BuiltinFunctionType)


def named_tensors(module: nn.Module, every_name: bool = False) -> Iterator[tuple[str, nn.Module, str, str, Tensor]]:
    """Name, part, table, key and tensor of every parameter and buffer in every part of a module.

    Arguments:
        module: the module.
        every_name: whether a part that is registered under two names is visited twice, as in a state dict.

    Example:
        >>> [name for name, *_ in named_tensors(nn.Sequential(nn.Linear(2, 3)))]
        ['0.weight', '0.bias']
    """
    for path, part in module.named_modules(remove_duplicate=not every_name):
        for table in TENSOR_TABLES:
            for key, tensor in getattr(part, table).items():
                if tensor is not None:
                    yield f"{path}.{key}" if path else key, part, table, key, tensor


def module_view(module: nn.Module, tensors: Sequence[Tensor], plain: bool | None = None) -> nn.Module:
    """A module of the same classes as `module` with other tensors, which it refers to and does not copy.

    Arguments:
        module: the module to view.
        tensors: the view's tensors, in the order of `named_tensors(module)`.
        plain: the result of `has_plain_attributes(module)`, if it is known already.
    """
    if has_plain_attributes(module) if plain is None else plain:
        return _copy_shell(module, iter(tensors), {})
    # Other attributes that refer to the module's parts or tensors refer to those of the view, too.
    memo = {id(old): new for (*_, old), new in zip(named_tensors(module), tensors, strict=True)}
    with _without_guards(module):
        return copy.deepcopy(module, memo)


def guarded_view(module: nn.Module, tensors: Sequence[Tensor], number: int) -> nn.Module:
    """A view for users to keep: it has hooks of its own, and changes that a stack cannot hold raise an error.

    Such changes are freezing the view and moving it to another device or number format.

    Arguments:
        module: the module to view.
        tensors: the view's tensors, in the order of `named_tensors(module)`.
        number: the expert's number, for the errors.
    """
    expert = module_view(module, tensors)
    for path, part in expert.named_modules():
        attributes = vars(part)
        attributes.update({name: value.copy() for name, value in attributes.items() if isinstance(value, OrderedDict)})
        part_path = f"experts.{number}.{path}".removesuffix(".")
        freeze_fix = "moe.experts.requires_grad_(False)"
        attributes[_METHODS] = {
            "requires_grad_": partial(_refuse_change, part_path, "be frozen or trained", freeze_fix),
            "_apply": partial(_refuse_move, part, part_path),
            "state_dict": partial(_independent_state, part),
            "__reduce_ex__": partial(_reduce_copy, part),
        }
        if not path:
            attributes[_METHODS]["apply"] = partial(_apply_function, expert)
        attributes.update(attributes[_METHODS])
    record_origin(expert)
    return expert


def record_origin(expert: nn.Module, tensors: Sequence[Tensor] | None = None) -> None:
    """Record the parts and tensors of a guarded view, for `describe_replacement` to compare with.

    Arguments:
        expert: the view.
        tensors: tensors to give the view first, in the order of `named_tensors`; None to leave those that it has.
    """
    if tensors is not None:
        for (_, part, table, key, _), tensor in zip(named_tensors(expert), tensors, strict=True):
            getattr(part, table)[key] = tensor
    # The alias of a tensor keeps the address of the memory, also after `tensor.data = …`.
    aliases = [(tensor, tensor.detach()) for *_, tensor in named_tensors(expert)]
    vars(expert)[_ORIGIN] = (list(expert.modules()), aliases)


def describe_replacement(expert: nn.Module) -> str | None:
    """Which part or tensor of a guarded view was replaced, as a clause; None where none was."""
    old_parts, aliases = vars(expert)[_ORIGIN]
    parts, tensors = list(expert.named_modules()), list(named_tensors(expert))
    for (path, part), old_part in zip(parts, [*old_parts, None], strict=False):
        if part is not old_part:
            return f"{path} is now a {type(part).__name__}"
    if len(parts) != len(old_parts) or len(tensors) != len(aliases):
        return "parts of it are gone"
    for (name, *_, tensor), (old_tensor, alias) in zip(tensors, aliases, strict=True):
        if tensor is not old_tensor or not _shares_memory(tensor, alias):
            return f"{name} is another tensor"
        if tensor._backward_hooks:
            return f"{name} has a hook on its gradient, which is a part of that of all experts"
    return None


def describe_view_difference(expert: nn.Module, module: nn.Module, path_prefix: str = "") -> str | None:
    """How a guarded view differs from its module in hooks, mode or settings, as a clause; None where they are equal.

    Arguments:
        expert: the view.
        module: the module that it is a view of.
        path_prefix: path of the view, which the clause puts before the paths of its parts.
    """
    for (path, part), module_part in zip(expert.named_modules(), module.modules(), strict=True):
        name = f"{path_prefix}.{path}".strip(".") or type(part).__name__
        if type(part) is not type(module_part):
            return f"{name} is a {type(part).__name__}"
        if any(vars(part).get(table) for table in HOOK_TABLES):
            return f"{name} has hooks"
        if not equal_values(module_settings(part), module_settings(module_part)):
            return f"{name} has a mode or settings of its own"
    return None


def module_settings(part: nn.Module) -> dict[str, Any]:
    """The public attributes of a module, its mode (`training`) among them."""
    attributes = vars(part)
    methods = attributes.get(_METHODS, ())
    return {name: value for name, value in attributes.items() if name[0] != "_" and name not in methods}


def copy_settings(module: nn.Module, expert: nn.Module) -> None:
    """Copy the public attributes and modes of a view to the parts of its module."""
    for part, expert_part in zip(module.modules(), expert.modules(), strict=True):
        vars(part).update(module_settings(expert_part))


def independent_copy(part: nn.Module) -> nn.Module:
    """Copy a view, or a part of one, to an ordinary module whose tensors share no memory with the stack."""
    copies: dict[int, Tensor] = {}
    for *_, table, _, tensor in named_tensors(part):
        values = tensor.detach().clone()
        copies.setdefault(id(tensor), nn.Parameter(values, tensor.requires_grad) if table == "_parameters" else values)
    return copy.deepcopy(module_view(part, [copies[id(tensor)] for *_, tensor in named_tensors(part)]))


def has_plain_attributes(module: nn.Module) -> bool:
    """Whether all parts and tensors of a module are registered: no other attribute may hold one."""
    return all(map(_part_has_plain_attributes, module.modules()))


def _part_has_plain_attributes(part: nn.Module) -> bool:
    attributes = vars(part)
    skipped = MODULE_ATTRIBUTES.union(attributes.get(_METHODS, ()), (_METHODS, _ORIGIN))
    return all(name in skipped or _is_plain_value(value) for name, value in attributes.items())


def _is_plain_value(value: Any) -> bool:
    return isinstance(value, _SHARED_TYPES) or (isinstance(value, list | tuple) and all(map(_is_plain_value, value)))


def _copy_shell(part: nn.Module, tensors: Iterator[Tensor], copies: dict[int, nn.Module]) -> nn.Module:
    """Copy a module with plain attributes, recursively, with the next of `tensors` for each parameter and buffer.

    Arguments:
        part: the module to copy.
        tensors: the copy's tensors, in the order of `named_tensors`.
        copies: id of a module → its copy, filled here: a part with two names is copied once.
    """
    if id(part) in copies:
        return copies[id(part)]
    shell = copies[id(part)] = object.__new__(type(part))
    # Through `vars`, because the way in which modules set attributes is slow.
    attributes = vars(shell)
    attributes.update(vars(part))
    for name in (*attributes.pop(_METHODS, ()), _ORIGIN):
        attributes.pop(name, None)
    for table in TENSOR_TABLES:
        attributes[table] = {name: None if old is None else next(tensors) for name, old in attributes[table].items()}
    attributes["_modules"] = {
        name: child and _copy_shell(child, tensors, copies) for name, child in attributes["_modules"].items()
    }
    return shell


@contextmanager
def _without_guards(module: nn.Module) -> Iterator[None]:
    """Inside the block the parts of a guarded view lack what `guarded_view` added to them."""
    guards = {
        part: {
            name: vars(part)[name] for name in (*vars(part).get(_METHODS, ()), _METHODS, _ORIGIN) if name in vars(part)
        }
        for part in module.modules()
    }
    for part, attributes in guards.items():
        for name in attributes:
            del vars(part)[name]
    try:
        yield
    finally:
        for part, attributes in guards.items():
            vars(part).update(attributes)


def _independent_state(part: nn.Module, *args: Any, **options: Any) -> dict[str, Any]:
    """`state_dict` with copies of the tensors: a file of a view's tensor would hold the memory of all experts."""
    state = type(part).state_dict(part, *args, **options)
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.requires_grad and value.untyped_storage().nbytes() > value.nbytes:
            state[name] = value.clone()
    return state


def _refuse_change(part_path: str, change: str, stack_fix: str, *_: Any, **__: Any) -> NoReturn:
    rule = f"an expert of a stack is a view of the tensors that hold all of them and cannot {change} alone"
    raise MoebiusError(f"{part_path}: {rule}", f"{stack_fix}    # all; or, for experts of their own: {UNSTACK_FIX}")


def _refuse_move(part: nn.Module, part_path: str, function: Callable[[Tensor], Tensor], *_: Any) -> nn.Module:
    """`_apply`, which `to`, `float`, `cuda` … call, for functions that return every tensor as it is."""
    if any(function(tensor) is not tensor for *_, tensor in named_tensors(part)):
        _refuse_change(part_path, "change its number format or device", "moe.experts.to(…)")
    return part


def _reduce_copy(part: nn.Module, protocol: int) -> Any:
    """`__reduce_ex__`: copying and pickling a view give an independent module."""
    return independent_copy(part).__reduce_ex__(protocol)


def _apply_function(expert: nn.Module, function: Callable[[nn.Module], None]) -> nn.Module:
    """`apply`; where the function replaces a tensor, copy the new values to the stack and restore the old tensor."""
    nn.Module.apply(expert, function)
    old_parts, aliases = vars(expert)[_ORIGIN]
    tensors = list(named_tensors(expert))
    if list(expert.modules()) == old_parts and len(tensors) == len(aliases):
        for (_, part, table, key, tensor), (old_tensor, alias) in zip(tensors, aliases, strict=True):
            if tensor.shape == alias.shape and not (tensor is old_tensor and _shares_memory(tensor, alias)):
                alias.copy_(tensor.detach())
                old_tensor.data = alias
                getattr(part, table)[key] = old_tensor
    return expert


def _shares_memory(tensor: Tensor, alias: Tensor) -> bool:
    """Whether a tensor still has the memory of its alias: `tensor.data = …` gives it another one."""
    return tensor.is_meta or tensor.data_ptr() == alias.data_ptr()
