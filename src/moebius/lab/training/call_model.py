"""Calling a model that is trained, whatever it is: a mixture, or a network with mixtures inside."""

from typing import Any

from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moebius.core.row_context import current_context, row_context, takes_context
from moebius.layers.mixture import Mixture


def call_model(model: nn.Module, x: Tensor, domains: Int[Tensor, " T"]) -> Any:
    """The model's output for a batch.

    A mixture receives {"domain": domains} as its context. Any other module is called with `x` alone, and mixtures
    inside it find the domains as if `mb.context(domain=domains)` stood around the call.

    Arguments:
        model: also within `DistributedDataParallel`.
        x: inputs (T, …).
        domains: (T,), the data set that each row comes from.
    """
    context = {"domain": domains}
    module = model.module if isinstance(model, DistributedDataParallel) else model
    if isinstance(module, Mixture) and takes_context(type(module)):
        return model(x, context)
    with row_context(current_context().with_values(context)):
        return model(x)


def gives_log_probabilities(model: nn.Module) -> bool:
    """Whether the outputs are log-probabilities: as the combine of a mixture declares, False for any other module."""
    return isinstance(model, Mixture) and bool(getattr(model.combine, "gives_log_probabilities", False))
