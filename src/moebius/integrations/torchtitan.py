"""Layers of torchtitan: a token-choice router with a gate of its own."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing
from moebius.integrations._experts import refuse_outputs, run_experts, takes_choice
from moebius.integrations._family import Family, Record, first_tensor, named_child
from moebius.integrations._routing import route_choice
from moebius.integrations.transformers import find_normalisation


class Torchtitan(Family):
    """Layers whose router has a `gate`, and returns weights, indices and a third value that counts or marks rows.

    Scores are the outputs of `router.gate`. `probs` is their softmax, or their sigmoid where `router.score_func` says
    so. Where the layer has `score_before_experts`, the weights multiply the experts' inputs and not their outputs.
    The outputs of all experts are known where experts take sorted rows and the number of rows of each expert, and
    weights multiply outputs.

    Example:
        >>> Torchtitan().recognises(nn.Linear(2, 2))
        False

    Reference: torchtitan, `models/common/moe.py`, `TokenChoiceTopKRouter`, in the versions of 2025 and 2026.
    """

    def recognises(self, block: nn.Module) -> bool:
        """Whether its router has a gate, `top_k`, `score_func` and `route_scale`, and returns no logits."""
        router, experts = named_child(block, "router"), named_child(block, "experts", "routed_experts")
        settings = ("gate", "top_k", "score_func", "route_scale")
        return experts is not None and all(hasattr(router, name) for name in settings) and not takes_choice(experts)

    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the gate for the scores, and the router for weights and indices."""
        router, experts = block.get_submodule("router"), named_child(block, "experts", "routed_experts")
        assert experts is not None
        if outputs and (getattr(block, "score_before_experts", False) or not hasattr(block, "score_before_experts")):
            raise refuse_outputs("this layer of torchtitan", "it does not multiply outputs of experts by weights")
        normalisation = find_normalisation(block, router)
        scores: list[Tensor] = []

        def keep_scores(module: nn.Module, inputs: Any, output: Any) -> None:
            scores[:] = [first_tensor(output)]

        def read_router(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
            def make() -> Routing:
                weight_TK, expert_TK = output[0].flatten(0, -2), output[1].flatten(0, -2)
                routing = route_choice(scores[0], expert_TK, weight_TK, normalisation)
                return replace(routing, outputs=_outputs(experts, inputs[0], routing.experts)) if outputs else routing

            if scores:
                record(make)
            scores.clear()

        return [
            router.get_submodule("gate").register_forward_hook(keep_scores),
            router.register_forward_hook(read_router),
        ]


def _outputs(experts: nn.Module, rows: Tensor, count: int) -> Tensor:
    """The outputs of all experts: each of them receives all rows."""
    rows = rows.flatten(0, -2)
    counts = torch.eye(count, device=rows.device) * len(rows)
    return run_experts(lambda expert: experts.forward(rows, counts[expert]), count, rows)
