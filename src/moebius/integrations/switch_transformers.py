"""The blocks of transformers' Switch models: one expert for each row, with a capacity."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing
from moebius.integrations._experts import all_outputs
from moebius.integrations._family import Family, Record, named_child
from moebius.integrations._routing import route_choice
from moebius.routers._selecting import expert_counts


class SwitchTransformers(Family):
    """Blocks whose router chooses one expert for each row, and drops rows beyond an expert's capacity.

    A dropped row has an assignment that is not kept, and weight 0. `aux["dropped"]` () counts these rows;
    `aux["assigned"]` (E,) counts the rows that chose each expert, dropped ones too.

    Example:
        >>> SwitchTransformers().recognises(nn.Linear(2, 2))
        False

    Reference: transformers 5, `models/switch_transformers/modeling_switch_transformers.py`; Fedus, Zoph, Shazeer 2021,
    Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity.
    """

    def recognises(self, block: nn.Module) -> bool:
        """Whether it has the router of the family, and experts by name."""
        router, experts = named_child(block, "router"), named_child(block, "experts")
        return type(router).__name__ == "SwitchTransformersTop1Router" and isinstance(experts, nn.ModuleDict)

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the router, whose outputs are a one-hot mask without dropped rows, the weight, and the logits."""
        router, experts = named_child(block, "router"), named_child(block, "experts")
        assert router is not None
        assert isinstance(experts, nn.ModuleDict)

        def read_router(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
            def make() -> Routing:
                mask_TE, weight_T1, scores = (value.flatten(0, -2) for value in output)
                expert_T1 = scores.argmax(-1, keepdim=True)
                kept_T1 = mask_TE.sum(-1, keepdim=True)
                assigned = expert_counts(expert_T1[:, 0], scores.shape[1])
                aux = {"assigned": assigned, "dropped": len(scores) - kept_T1.sum()}
                routing = route_choice(scores, expert_T1, weight_T1 * kept_T1, "softmax", aux)
                if not outputs:
                    return routing
                return replace(routing, outputs=all_outputs(experts, inputs[0], routing.experts))

            record(make)

        return [router.register_forward_hook(read_router)]
