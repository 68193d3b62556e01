"""The outputs of all experts of another library's block, for all rows."""

import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from moebius.kit.errors import MoebiusError


def takes_choice(experts: nn.Module) -> bool:
    """Whether the forward of the experts takes rows, indices and weights, by the names of its parameters.

    Example:
        >>> takes_choice(nn.Linear(2, 2))
        False
    """
    names = parameter_names(experts)
    return len(names) >= 3 and bool(re.search("ind|selected|ids", names[1]) and re.search("weight|scores", names[2]))


def parameter_names(module: nn.Module) -> list[str]:
    """The names of the parameters of the module's forward; none where it has no signature, as compiled ones may.

    Example:
        >>> parameter_names(nn.Linear(2, 2))
        ['input']
    """
    try:
        return list(inspect.signature(type(module).forward).parameters)[1:]
    except (TypeError, ValueError):
        return []


def all_outputs(experts: nn.Module, rows: Tensor, count: int) -> Tensor:
    """The outputs of all experts for all rows, (T, E, …).

    Arguments:
        experts: a list or a mapping of modules, or a module that takes rows, indices and weights: then each expert is
            the only choice of every row, with weight 1.
        rows: (…, D).
        count: E.

    Raises:
        MoebiusError: the experts are neither.
    """
    rows = rows.flatten(0, -2)
    # Not by calls of modules, which would run the hooks again.
    if isinstance(experts, nn.ModuleList | nn.ModuleDict):
        parts = list(experts.values() if isinstance(experts, nn.ModuleDict) else experts)
        return run_experts(lambda expert: parts[expert].forward(rows), count, rows)
    if not takes_choice(experts):
        raise refuse_outputs(type(experts).__name__, "its forward does not take rows, indices and weights")
    indices, ones = torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device), rows.new_ones(len(rows), 1)
    return run_experts(lambda expert: experts.forward(rows, indices + expert, ones).flatten(1), count, rows)


def run_experts(run: Callable[[int], Tensor], count: int, rows: Tensor) -> Tensor:
    """The outputs of all experts, (T, E, …); random numbers that experts draw are given back.

    Arguments:
        run: the number of an expert → its outputs for the rows, (T, …).
        count: E.
        rows: any tensor on the rows' device.
    """
    devices = [rows.device] if rows.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return torch.stack([run(expert) for expert in range(count)], 1)


def refuse_outputs(family: str, reason: str) -> MoebiusError:
    """The error of a block whose experts cannot be run on all rows."""
    return MoebiusError(f"the outputs of all experts are not known for {family}: {reason}", "mb.watch(model)")
