"""A layer beside an expert that sees every token."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.row_context import calling_context, row_context
from moebius.experts.ffn import FFN
from moebius.gates.linear import Linear
from moebius.kit.errors import ArgumentError


class SharedExpert(nn.Module):
    """Adds an expert that every token goes through to a layer of routed experts, with a gate of its own if it has one.

    y = layer(x) + σ(gate(x)) · expert(x), or without a gate  y = layer(x) + expert(x)

    Where shared experts are as wide as the routed ones and have no gate, `SparseFFN(shared=…)` does the same.

    Arguments:
        layer: tokens (…, D) → (…, D): a mixture, or `SparseFFN`.
        expert: tokens (…, D) → (…, D).
        gate: tokens (…, D) → one score for each, (…, 1); None for a weight of 1.

    Shapes: x (…, D) → (…, D).

    Raises:
        ArgumentError: the gate does not give one score for each token.

    Example:
        >>> import moebius as mb
        >>> sparse = mb.layers.SparseFFN(dim=8, hidden=16, experts=4, k=2)
        >>> layer = SharedExpert(sparse, mb.experts.FFN(8, 32), mb.gates.Linear(8, 1, bias=False))
        >>> layer(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])

    Reference: Dai et al. 2024, DeepSeekMoE, section 3.2 (shared experts); Qwen Team 2024, Qwen1.5-MoE, whose shared
    expert has the gate.
    """

    def __init__(self, layer: nn.Module, expert: nn.Module, gate: nn.Module | None = None):
        super().__init__()
        self.layer, self.expert, self.gate = layer, expert, gate

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments for the checks of `moebius.testing`."""
        from moebius.layers.sparse_ffn import SparseFFN

        width = facts["features"]
        sparse = SparseFFN(width, hidden=8, experts=facts["experts"])
        return {"layer": sparse, "expert": FFN(width, 8), "gate": Linear(width, 1, bias=False)}

    def forward(self, x: Float[Tensor, "... D"], mask: Tensor | None = None) -> Float[Tensor, "... D"]:
        """Run the layer and the expert.

        Arguments:
            x: tokens.
            mask: True for real tokens, with the tokens' batch axes or the first of these; also
                `with mb.context(mask=…)`. The outputs of padding are 0.
        """
        context, x, padding = calling_context(self).with_values(None, mask).remove_padding(x, x.ndim - 1)
        with row_context(context):
            y, shared = self.layer(x), self.expert(x)
            shared = shared if self.gate is None else self._weight(self.gate, x) * shared
        y = y + shared
        return y if padding is None else padding.restore_rows(y)

    def _weight(self, gate: nn.Module, x: Tensor) -> Tensor:
        scores = gate(x)
        if scores.shape != (*x.shape[:-1], 1):
            rule = f"must give one score for each token of {tuple(x.shape)}"
            raise ArgumentError("gate", rule, tuple(scores.shape), f"mb.gates.Linear({x.shape[-1]}, 1, bias=False)")
        return torch.sigmoid(scores)
