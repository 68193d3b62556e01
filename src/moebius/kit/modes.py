"""Switching a model to evaluation mode for a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model in evaluation mode inside the block; afterwards each part has its previous mode again.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluation_mode(model):
        ...     [part.training for part in model]
        [False, False]
        >>> [part.training for part in model]
        [True, False]
    """
    modes = {part: part.training for part in model.modules()}
    try:
        yield model.eval()
    finally:
        for part, training in modes.items():
            part.training = training
