"""A mixture of which exactly one expert runs for a row."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from moebius.execution.auto import Auto
from moebius.layers.mixture import Mixture, executed_by
from moebius.routers.cut import Cut


@contextmanager
def cut_to_one_expert(model: nn.Module) -> Iterator[None]:
    """Inside the block every mixture of the model runs, for each row, only the expert with the largest weight.

    Nothing is trained or copied; after the block the model has its routers again. The experts run by `auto`: an
    execution that is made for every row through every expert refuses a selection.

    Reference: ours; study 5 asks what a mixture trained with several experts loses by it.
    """
    mixtures = [module for module in model.modules() if isinstance(module, Mixture)]
    routers = [mixture.router for mixture in mixtures]
    try:
        for mixture in mixtures:
            mixture.router = Cut(mixture.router).train(mixture.router.training)
        with executed_by(model, Auto()):
            yield
    finally:
        for mixture, router in zip(mixtures, routers, strict=True):
            mixture.router = router
