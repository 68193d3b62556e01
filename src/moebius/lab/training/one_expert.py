"""A mixture of which exactly one expert runs for a row."""

from contextlib import AbstractContextManager

from torch import nn

from moebius.lab.training.mixture_parts import router_places
from moebius.lab.training.rerouting import changed_routers
from moebius.routers.cut import Cut


def cut_to_one_expert(model: nn.Module) -> AbstractContextManager[None]:
    """Inside the block each gate of the model leaves, for each row, only the expert with the largest weight.

    A layer with a gate for each task then takes one expert for each task, of its own and the shared ones together; a
    `PositionMixture` one for each position, so that several may run on an input. Nothing is trained or copied; after
    the block the model has its routers again.

    Reference: ours; study 5 asks what a mixture trained with several experts loses by it.
    """
    return changed_routers(model, router_places(model), lambda router: Cut(router).train(router.training))
