"""Whether modules are equal but for the values of their parameters, so that one computation serves all of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Structure:
    """What a module consists of, besides the values of its tensors.

    Arguments:
        module: the module, as it is now.

    Attributes:
        parts: the module and all modules inside it, each once, with their paths.
    """

    def __init__(self, module: nn.Module):
        self.kind, self.parts = type(module), named_parts(module)
        # Each tensor once: a module with two tensors then has one name more than a module with one tensor of two names.
        tensors: set[Tensor] = set()
        self.shapes: list[tuple[str, str, tuple[int, ...]]] = []
        self.formats: list[tuple[torch.dtype, torch.device, type]] = []
        for path, part in self.parts:
            for table in (part._parameters, part._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor not in tensors:
                        tensors.add(tensor)
                        self.shapes.append((path, name, tuple(tensor.shape)))
                        self.formats.append((tensor.dtype, tensor.device, type(tensor)))

    def difference(self, right: "Structure") -> str | None:
        """In what the modules differ, as the end of a sentence; None where they are equal."""
        for name, difference in _DIFFERENCES.items():
            if getattr(self, name) != getattr(right, name):
                return difference
        same = len(self.parts) == len(right.parts) and all(map(_are_equal, self.parts, right.parts))
        return None if same else _OTHER_DIFFERENCE


_DIFFERENCES = {
    "kind": "their classes differ",
    "shapes": "their parameters' shapes differ",
    "formats": "their tensors' formats, devices or kinds differ",
}
_OTHER_DIFFERENCE = "their structures differ"


def describe_difference(experts: Sequence[nn.Module]) -> str | None:
    """In what the modules differ, as the end of a sentence; None where they are equal.

    Example:
        >>> describe_difference([nn.Linear(2, 3), nn.Linear(2, 4)])
        "their parameters' shapes differ"
    """
    first, *others = map(Structure, experts)
    differences = set(map(first.difference, others))
    return next((each for each in (*_DIFFERENCES.values(), _OTHER_DIFFERENCE) if each in differences), None)


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """`list(module.named_modules())`, in a tenth of its calls of functions."""
    parts: list[tuple[str, nn.Module]] = []
    seen: set[nn.Module] = set()
    remaining = [("", module)]
    while remaining:
        path, part = remaining.pop()
        if part not in seen:
            seen.add(part)
            parts.append((path, part))
            for name, child in reversed(part._modules.items()):
                if child is not None:
                    remaining.append((f"{path}.{name}" if path else name, child))
    return parts


def has_global_hooks() -> bool:
    """Whether hooks for all modules are registered (`torch.nn.modules.module.register_module_…`)."""
    return any(getattr(torch.nn.modules.module, f"_global{table}") for table in HOOK_TABLES)


def has_hooks(experts: Sequence[nn.Module]) -> bool:
    """Whether one of these modules, or of their parts, has hooks."""
    return any(getattr(part, table, None) for expert in experts for part in expert.modules() for table in HOOK_TABLES)


def _are_equal(left: tuple[str, nn.Module], right: tuple[str, nn.Module]) -> bool:
    """Whether two parts have one path and class, and all attributes that a forward can read are equal in them."""
    (left_path, left_part), (right_path, right_part) = left, right
    kind = type(left_part)
    if left_path != right_path or kind is not type(right_part):
        return False
    if not equal_values(_settings(left_part), _settings(right_part)):
        return False
    if kind.__module__.startswith("torch.nn.modules."):  # these show their public attributes
        return True
    if kind.__repr__ is not nn.Module.__repr__:
        return repr(left_part) == repr(right_part)
    return kind.extra_repr is nn.Module.extra_repr or left_part.extra_repr() == right_part.extra_repr()


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name[0] != "_"}


def equal_values(left: Any, right: Any) -> bool:
    """Whether two attribute values are equal; a tensor equals itself only."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_values(left[key], right[key]) for key in left)
    return left is right or (type(left) is type(right) and not isinstance(left, Tensor) and bool(left == right))
