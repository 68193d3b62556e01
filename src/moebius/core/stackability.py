"""Whether experts can share stacked parameters, as far as their own attributes and tensors tell."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from moebius.core.equality import describe_difference, has_hooks
from moebius.core.module_views import MODULE_ATTRIBUTES, named_tensors


def describe_obstacle(experts: Sequence[nn.Module]) -> str | None:
    """Why these experts cannot share stacked parameters, as the end of a sentence; None where nothing prevents it.

    Example:
        >>> shared = nn.Linear(2, 2)
        >>> describe_obstacle([shared, shared])
        'they share a part, and each would get its own'
    """
    if has_hooks(experts):
        return "some have hooks, and each would get those of the first"
    difference = describe_difference(experts)
    if difference is not None:
        return difference
    tensors_by_expert = [{id(tensor): tensor for *_, tensor in named_tensors(expert)} for expert in experts]
    tensor_types = {type(tensor): None for tensor in tensors_by_expert[0].values()}
    special_type = next((kind for kind in tensor_types if kind not in (Tensor, nn.Parameter)), None)
    if special_type is not None:
        return f"their tensors are of a kind of their own, {special_type.__name__}, which a stack would lose"
    if len(set().union(*tensors_by_expert)) < sum(map(len, tensors_by_expert)):
        return "they share a part, and each would get its own"
    foreign_path = next((path for expert in experts if (path := find_foreign_parameters(expert)) is not None), None)
    if foreign_path is not None:
        return f"their attribute {foreign_path} leads to parameters that are not theirs, and each would get copies"
    trainable = [[tensor.requires_grad for tensor in tensors.values()] for tensors in tensors_by_expert]
    if any(flags != trainable[0] for flags in trainable):
        return "in some of them parameters are frozen that are not in others"
    return None


def find_foreign_parameters(module: nn.Module) -> str | None:
    """The path of an attribute that refers to parameters which are not the module's own; None where none does.

    A function refers to the modules and parameters that it closes over: a copy of it still computes with these.

    Example:
        >>> expert = nn.Linear(2, 3)
        >>> expert.shared = [nn.Linear(3, 3)]
        >>> find_foreign_parameters(expert)
        'shared'
    """
    parts = set(module.modules())
    tensor_ids = {id(tensor) for *_, tensor in named_tensors(module)}

    def refers_elsewhere(value: Any) -> bool:
        if isinstance(value, nn.Module):
            return value not in parts and next(value.parameters(), None) is not None
        if isinstance(value, Tensor):
            return value.requires_grad and id(value) not in tensor_ids
        if isinstance(value, FunctionType):
            return any(isinstance(variable, nn.Module | nn.Parameter) for variable in _closure_values(value))
        if isinstance(value, MethodType):
            return refers_elsewhere(value.__self__)
        if isinstance(value, partial):
            value = [value.func, *value.args, *value.keywords.values()]
        if isinstance(value, dict):
            value = list(value.values())
        return isinstance(value, list | tuple | set) and any(map(refers_elsewhere, value))

    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in MODULE_ATTRIBUTES and refers_elsewhere(value):
                return f"{path}.{name}".strip(".")
    return None


def _closure_values(function: FunctionType) -> Iterator[Any]:
    """The values of the variables that a function closes over."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a variable that has no value yet
            yield cell.cell_contents
