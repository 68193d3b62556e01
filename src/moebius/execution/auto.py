"""The execution that picks one by a rule."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.execution.loop import loop
from moebius.execution.stacked import own_product, why_not
from moebius.routing import Routing


def auto(
    experts: Sequence[nn.Module] | nn.ModuleList, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "..."]:
    """Run the experts in the way that `choose` names.

    Reference: ours. A rule and never a measurement, so that a resumed run computes the same bits.
    """
    name, _ = choose(experts, routing)
    return own_product(experts[0])(experts, x) if name == "stacked" else loop(experts, x, routing)


def choose(experts: Sequence[nn.Module] | nn.ModuleList, routing: Routing) -> tuple[str, str]:
    """The name of the execution for these experts and this routing, and the reason as a sentence.

    Example:
        >>> import torch, moebius as mb
        >>> experts = [mb.experts.Linear(4, 3), torch.nn.Linear(4, 3)]
        >>> choose(experts, mb.routers.Soft()(torch.zeros(5, 2)))
        ('loop', 'stacked needs equal experts: their classes differ')
    """
    if len(experts) == 1:
        return "loop", "there is one expert"
    if routing.selection is None and own_product(experts[0]) is None:
        return "loop", f"{type(experts[0]).__name__} has no product of its own for equal experts"
    why = why_not(experts, routing)
    return ("stacked", "equal experts all run: one product") if why is None else ("loop", f"stacked {why}")
