"""The two forms of a pool's state: a tensor for all experts, as a stack has it, or one for each, as a list has it."""

from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.module_views import tensors_of

# What a stack has under these names itself.
_OF_STACKS = """
    clauses count flat names of only particulars parts places quick renew reset_parameters template tensor tensors
    unstacked _begin _differ _handed _put _take_settings
"""
_TAKEN = frozenset((*dir(nn.Module()), *_OF_STACKS.split(), "__getitem__", "__iter__", "__len__", "__setitem__"))


def flat_names(expert: nn.Module) -> dict[str, str]:
    """Each name that a tensor has in an expert → its one name in a stack.

    Example:
        >>> flat_names(nn.Sequential(nn.Linear(2, 3)))
        {'0.weight': '0_weight', '0.bias': '0_bias'}
    """
    names: dict[str, str] = {}
    of_tensor: dict[int, str] = {}
    for name, *_, tensor in tensors_of(expert, every_name=True):
        flat = name.replace(".", "_")
        while id(tensor) not in of_tensor and (flat in of_tensor.values() or flat in _TAKEN):
            flat += "_"
        names[name] = of_tensor.setdefault(id(tensor), flat)
    return names


def accept_list_state(
    stack: Any, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
) -> None:
    """Take the state of a list. What is missing or of another shape torch is told as of a list, and takes the rest."""
    errors = rest[-1]
    for flat, whole in stack.state_dict().items():
        names = [name for name, other in stack.names.items() if other == flat]
        keys = [[f"{prefix}{number}.{name}" for name in names] for number in range(len(stack))]
        if prefix + flat in state or not any(key in state for of_one in keys for key in of_one):
            continue
        missing += [of_one[0] for of_one in keys if not any(key in state for key in of_one)]
        given = [[state.pop(key) for key in of_one if key in state][-1:] for of_one in keys]
        rows = []
        for (key, *_), values, old in zip(keys, given, whole, strict=True):
            new = values[0] if values else old
            if new.shape != old.shape:
                errors.append(
                    f"size mismatch for {key}: copying a param with shape {new.shape} from checkpoint, "
                    f"the shape in current model is {old.shape}."
                )
                new = old
            rows.append(new)
        kinds = {(row.dtype, row.device) for row in rows}
        state[prefix + flat] = torch.stack(rows if len(kinds) == 1 else [row.to(whole) for row in rows])


def accept_stack_state(moe: nn.Module, state: dict[str, Any], prefix: str, metadata: Any, *_: Any) -> None:
    """In a state dict for a list of experts: a stack's tensors become one for each expert."""
    experts = moe.experts
    if not isinstance(experts, nn.ModuleList):
        return
    before, names = f"{prefix}experts.", flat_names(experts[0])
    assigned = metadata.get("assign_to_params_buffers", False)
    for name, flat in names.items():
        whole = state.get(before + flat)
        if isinstance(whole, Tensor) and whole.shape[:1] == (len(experts),):
            for number, tensor in enumerate(whole.unbind()):
                state[f"{before}{number}.{name}"] = tensor.clone() if assigned else tensor
    for flat in names.values():
        if f"{before}0.{next(iter(names))}" in state:
            state.pop(before + flat, None)


def renew_parameters(stack: Any, *_: Any) -> None:
    """Loading with `assign=True` puts other tensors in the place of a stack's."""
    stack.renew()
