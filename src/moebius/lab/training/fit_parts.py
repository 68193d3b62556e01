"""Parts of a model that learn something of the training rows before the first step, such as the bins of numbers."""

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import part_input
from moebius.lab.training.mixture_parts import gate_modules, mixture_layers


def fit_parts(model: nn.Module, train: Split, trained: Collection[str] = ("gate", "experts")) -> None:
    """Call `fit_rows(rows)` of every part that has it, with all training rows as the model gets them.

    A part inside another one with `fit_rows` is left to that one. Networks that a stage has trained keep what they
    have, and so does a part that has seen rows before: its `is_fitted`, or that of all modules inside that have one,
    is true. A part without one gets the attribute.

    Arguments:
        model: its parts may change.
        train: the training rows.
        trained: "gate", "experts" or both: parts of what is not trained keep what they have.

    Raises:
        ArgumentError: a part cannot have its rows, because the model takes several inputs by itself.

    Example:
        >>> import torch
        >>> from moebius.experts.table import Table
        >>> expert = Table(features=1, classes=2, numeric="piecewise", bins=2)
        >>> rows = torch.tensor([[0.0], [1.0], [5.0]])
        >>> fit_parts(expert, Split(rows, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)))
        >>> expert.network.encoder.numbers.edges
        tensor([[0., 1., 5.]])
    """
    gates = {module for layer in mixture_layers(model) for gate in gate_modules(layer) for module in gate.modules()}
    for part in _parts_to_fit(model):
        if ("gate" if part in gates else "experts") not in trained or _is_fitted(part):
            continue
        rows = part_input(model, part, train.images)
        if not isinstance(rows, Tensor):
            rule = f"takes several inputs, and nothing tells which of them {type(part).__name__} is to fit"
            raise ArgumentError("model", rule, type(model).__name__, "part.fit_rows(rows); part.is_fitted = True")
        part.fit_rows(scale_pixels(rows, scale=train.scale))  # type: ignore[operator]
        if not any(hasattr(module, "is_fitted") for module in part.modules()):
            part.is_fitted = True  # type: ignore[assignment]


def _is_fitted(part: nn.Module) -> bool:
    states = [module.is_fitted for module in part.modules() if hasattr(module, "is_fitted")]
    return bool(states) and all(states)


def _parts_to_fit(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, Adapter):
        return
    if hasattr(module, "fit_rows"):
        yield module
        return
    children = module.children()
    if isinstance(module, Stack):  # its experts are views of its tensors, made when they are asked for
        has_parts = any(True for _ in _parts_to_fit(module.template))
        children = iter(module) if has_parts else iter(())
    for child in children:
        yield from _parts_to_fit(child)
