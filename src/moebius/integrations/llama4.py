"""The blocks of Llama 4, which scale the inputs of their experts."""

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing
from moebius.integrations._experts import refuse_outputs
from moebius.integrations._family import Family, Record, named_child
from moebius.integrations._routing import route_choice


class Llama4(Family):
    """Blocks whose router returns a sigmoid for each chosen expert, by which the expert's *input* is multiplied.

    The weights of the routing are these factors: of the inputs, and not of the outputs. An expert's output for a row
    depends on the factor, so the outputs of all experts for all rows are not known. All experts run on all rows; those
    that were not chosen get zeros.

    Example:
        >>> Llama4().recognises(nn.Linear(2, 2))
        False

    Reference: transformers 5, `models/llama4/modeling_llama4.py`, `Llama4TextMoe`.
    """

    def recognises(self, block: nn.Module) -> bool:
        """Whether it has the router of the family."""
        return type(named_child(block, "router")).__name__ == "Llama4Router"

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the router, whose outputs are factors (T, E) and logits."""
        if outputs:
            raise refuse_outputs("Llama 4", "the router scales the experts' inputs")
        router = block.get_submodule("router")
        k: int = router.top_k  # type: ignore[assignment]

        def read_router(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
            def make() -> Routing:
                factors, scores = output
                expert_TK = scores.topk(k, -1).indices
                return route_choice(scores, expert_TK, factors.gather(1, expert_TK), "sigmoid")

            record(make)

        return [router.register_forward_hook(read_router)]
