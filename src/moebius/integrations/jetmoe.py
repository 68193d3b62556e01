"""The blocks of JetMoE: mixtures of networks, and of attention heads."""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing, Selection
from moebius.integrations._experts import refuse_outputs
from moebius.integrations._family import Family, Record, named_child
from moebius.integrations._routing import make_routing


class JetMoe(Family):
    """Blocks whose router returns the assignments in the order of their experts, for networks and attention alike.

    In a mixture of attention heads (`self_attention.experts`) an expert is a pair of projections.

    Example:
        >>> JetMoe().recognises(nn.Linear(2, 2))
        False

    Reference: transformers 5, `models/jetmoe/modeling_jetmoe.py`; Shen, Guo, Cai, Qin 2024, JetMoE: Reaching Llama2
    Performance with 0.1M Dollars.
    """

    def recognises(self, block: nn.Module) -> bool:
        """Whether it has the router of the family."""
        return type(named_child(block, "router")).__name__ == "JetMoeTopKGating"

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the router, whose outputs are rows, weights and counts of the sorted assignments, and the logits."""
        if outputs:
            raise refuse_outputs("JetMoE", "its experts take rows that are sorted by expert")

        def read_router(module: nn.Module, inputs: Any, output: Any) -> None:
            def make() -> Routing:
                _, row_A, weight_A, counts, scores = output
                expert_A = torch.arange(len(counts), device=row_A.device)
                expert_A = expert_A.repeat_interleave(torch.tensor(counts, device=row_A.device), output_size=len(row_A))
                weights = weight_A.new_zeros(scores.shape).index_put((row_A, expert_A), weight_A)
                selection = Selection(row_A, expert_A, weight_A, weight_A != 0)
                return make_routing(scores, weights, "softmax", selection)

            record(make)

        return [block.get_submodule("router").register_forward_hook(read_router)]
