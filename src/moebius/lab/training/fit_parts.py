"""Parts of a model that learn something of the training rows before the first step, such as the bins of numbers."""

from collections.abc import Iterator

from torch import nn

from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.split import Split


def fit_parts(model: nn.Module, train: Split) -> None:
    """Call `fit_rows(rows)` of every part that has it, with all training rows as the model gets them.

    A part inside another one with `fit_rows` is left to that one. Networks that a stage has trained keep what they
    have.

    Example:
        >>> import torch
        >>> from moebius.experts.table import Table
        >>> expert = Table(features=1, classes=2, numeric="piecewise", bins=2)
        >>> rows = torch.tensor([[0.0], [1.0], [5.0]])
        >>> fit_parts(expert, Split(rows, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)))
        >>> expert.network.encoder.numbers.edges
        tensor([[0., 1., 5.]])
    """
    parts = list(_parts_to_fit(model))
    if parts:
        rows = scale_pixels(train.images)
        for part in parts:
            part.fit_rows(rows)  # type: ignore[operator]


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
