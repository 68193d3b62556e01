"""The blocks of Gemma 4, whose router returns probabilities."""

from torch import nn

from moebius.integrations._family import named_child
from moebius.integrations.transformers import Transformers


class Gemma4(Transformers):
    """As `transformers`, but the scores are those of the router's `proj`: the router returns probabilities.

    The block is the decoder layer, in which router and experts stand beside a dense network.

    Example:
        >>> Gemma4().recognises(nn.Linear(2, 2))
        False

    Reference: transformers 5, `models/gemma4/modeling_gemma4.py`, `Gemma4TextRouter`.
    """

    general = False

    def recognises(self, block: nn.Module) -> bool:
        """Whether the router has a projection and a scale for each expert."""
        router = named_child(block, "router")
        return hasattr(router, "per_expert_scale") and hasattr(router, "proj") and super().recognises(block)

    def scoring_module(self, router: nn.Module) -> nn.Module:
        """The router's projection."""
        return router.get_submodule("proj")
