"""The two forms of the experts' state: one tensor for all experts (a stack's), or one for each expert (a list's)."""

from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.module_views import named_tensors
from moebius.kit.errors import MoebiusError

# The attributes and methods of a stack. The last two lines are names of earlier versions: a tensor that avoids them
# keeps its name, so that saved states still load.
_STACK_ATTRIBUTES = """
    count differing_experts dispatcher flat_names has_plain_template named_parts of part_tensors product_obstacles
    refresh_views reset_parameters template template_names temporary_views tensor tensors unstacked
    _adopt_settings _allocate _copy_expert _has_changes _views
    clauses flat names only particulars parts places quick renew
    _begin _differ _handed _put _take_settings
"""
_RESERVED_NAMES = frozenset(
    (*dir(nn.Module()), *_STACK_ATTRIBUTES.split(), "__getitem__", "__iter__", "__len__", "__setitem__")
)


def flat_names(expert: nn.Module) -> dict[str, str]:
    """Map each name that a tensor has in an expert to the one name that the tensor has in a stack.

    Dots become underscores. A name that is taken, by another tensor or by an attribute of `Stack`, ends in further
    underscores.

    Example:
        >>> flat_names(nn.Sequential(nn.Linear(2, 3)))
        {'0.weight': '0_weight', '0.bias': '0_bias'}
    """
    names: dict[str, str] = {}
    name_by_tensor: dict[int, str] = {}
    for name, *_, tensor in named_tensors(expert, every_name=True):
        flat_name = name.replace(".", "_")
        while id(tensor) not in name_by_tensor and (
            flat_name in name_by_tensor.values() or flat_name in _RESERVED_NAMES
        ):
            flat_name += "_"
        names[name] = name_by_tensor.setdefault(id(tensor), flat_name)
    return names


def check_whole(stack: Any, number: int) -> None:
    """Check that a stack holds the tensors of all its experts.

    Raises:
        MoebiusError: it holds those of this process, after `mb.distributed.expert_parallel`.
    """
    if "dispatcher" in vars(stack):
        rule = "the experts of this stack are on several processes, and none of them can be taken out"
        raise MoebiusError(f"experts.{number}: {rule}", "before mb.distributed.expert_parallel, or after mb.save")


def accept_list_state(
    stack: Any, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing_keys: list[str], *rest: Any
) -> None:
    """Before a stack loads a state dict: stack the tensors of a list's state, one key for each expert.

    Missing keys and tensors of another shape are reported to torch under their names in the list; the stack keeps its
    values for them and loads the others.
    """
    error_messages = rest[-1]
    for flat_name, stacked in stack.state_dict().items():
        names = [name for name, expert_flat_name in stack.flat_names.items() if expert_flat_name == flat_name]
        keys_by_expert = [[f"{prefix}{number}.{name}" for name in names] for number in range(len(stack))]
        if prefix + flat_name in state or not any(key in state for keys in keys_by_expert for key in keys):
            continue
        missing_keys += [keys[0] for keys in keys_by_expert if not any(key in state for key in keys)]
        loaded = [[state.pop(key) for key in keys if key in state][-1:] for keys in keys_by_expert]
        tensors = []
        for (key, *_), candidates, present in zip(keys_by_expert, loaded, stacked, strict=True):
            tensor = candidates[0] if candidates else present
            if tensor.shape != present.shape:
                error_messages.append(
                    f"size mismatch for {key}: copying a param with shape {tensor.shape} from checkpoint, "
                    f"the shape in current model is {present.shape}."
                )
                tensor = present
            tensors.append(tensor)
        formats = {(tensor.dtype, tensor.device) for tensor in tensors}
        if len(formats) > 1:
            tensors = [tensor.to(stacked) for tensor in tensors]
        state[prefix + flat_name] = torch.stack(tensors)


def accept_stack_state(moe: nn.Module, state: dict[str, Any], prefix: str, metadata: Any, *_: Any) -> None:
    """Before a mixture with a list of experts loads a state dict: split a stack's tensors, one for each expert."""
    experts = moe.experts
    if not isinstance(experts, nn.ModuleList):
        return
    experts_prefix, names = f"{prefix}experts.", flat_names(experts[0])
    assigns = metadata.get("assign_to_params_buffers", False)
    for name, flat_name in names.items():
        stacked = state.get(experts_prefix + flat_name)
        if isinstance(stacked, Tensor) and stacked.shape[:1] == (len(experts),):
            for number, tensor in enumerate(stacked.unbind()):
                state[f"{experts_prefix}{number}.{name}"] = tensor.clone() if assigns else tensor
    for flat_name in names.values():
        if f"{experts_prefix}0.{next(iter(names))}" in state:
            state.pop(experts_prefix + flat_name, None)


def refresh_views_after_load(stack: Any, *_: Any) -> None:
    """After a stack has loaded a state dict: `assign=True` replaces its tensors, so its views need the new ones."""
    stack.refresh_views()
