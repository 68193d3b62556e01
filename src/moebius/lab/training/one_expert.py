"""What is left of a mixture when exactly one expert runs for a row."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from moebius.layers.mixture import Mixture
from moebius.routers.cut import Cut


@contextmanager
def cut_to_one_expert(model: nn.Module) -> Iterator[None]:
    """Inside the block every mixture of the model runs, for each row, the expert that its router weighs most, alone.

    Nothing is trained or copied; afterwards the routers are what they were.

    Reference: ours; study 5 asks what a mixture trained with several experts loses by it.
    """
    mixtures = [part for part in model.modules() if isinstance(part, Mixture)]
    kept = [mixture.router for mixture in mixtures]
    try:
        for mixture in mixtures:
            mixture.router = Cut(mixture.router).train(mixture.router.training)
        yield
    finally:
        for mixture, router in zip(mixtures, kept, strict=True):
            mixture.router = router
