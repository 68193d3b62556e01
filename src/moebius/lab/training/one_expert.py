"""A mixture of which exactly one expert runs for a row."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from moebius.execution.auto import Auto
from moebius.lab.training.mixture_parts import router_places
from moebius.layers.mixture import executed_by
from moebius.routers.cut import Cut


@contextmanager
def cut_to_one_expert(model: nn.Module) -> Iterator[None]:
    """Inside the block each gate of the model leaves, for each row, only the expert with the largest weight.

    A layer with a gate for each task then takes one expert for each task, of its own and the shared ones together; a
    `PositionMixture` one for each position, so that several may run on an input. Nothing is trained or copied; after
    the block the model has its routers again. The experts run by `auto`: an execution that is made for every row
    through every expert refuses a selection.

    Reference: ours; study 5 asks what a mixture trained with several experts loses by it.
    """
    places = router_places(model)
    routers = [getattr(holder, name) for holder, name in places]
    try:
        for (holder, name), router in zip(places, routers, strict=True):
            setattr(holder, name, Cut(router).train(router.training))
        with executed_by(model, Auto()):
            yield
    finally:
        for (holder, name), router in zip(places, routers, strict=True):
            setattr(holder, name, router)
