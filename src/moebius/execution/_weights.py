"""The weights of stacked feed-forward experts, for executions that are written for them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.execution._rowwise import why_not_rowwise
from moebius.execution.grouped import format_of
from moebius.experts.ffn import FFN
from moebius.stack import Stack


@dataclass(frozen=True)
class FFNWeights:
    """What E experts of kind ffn are made of; M = 2 for gated activations, 1 for others."""

    inner: Float[Tensor, "E MH D"]
    inner_bias: Float[Tensor, "E MH"] | None
    outer: Float[Tensor, "E D H"]
    outer_bias: Float[Tensor, "E D"] | None
    activation: str
    dtype: torch.dtype

    def cast(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """The tensors in the format that they are multiplied in; themselves where it is theirs."""
        biases = [None if bias is None else bias.to(self.dtype) for bias in (self.inner_bias, self.outer_bias)]
        return self.inner.to(self.dtype), biases[0], self.outer.to(self.dtype), biases[1]


def why_not_ffn(experts: Any, x: Tensor) -> str | None:
    """Why an execution for stacked feed-forward experts cannot run these, as the end of a sentence; else None."""
    if not isinstance(experts, Stack) or type(experts.stacked) is not FFN:
        return "needs a stack of feed-forward experts: mb.Stack of mb.experts.FFN"
    expert = experts.stacked
    why = why_not_rowwise(experts, x)
    if why is not None:
        return why
    if x.dtype != expert.inner.weight.dtype and format_of(x) == x.dtype:
        return f"needs rows in the experts' number format, {expert.inner.weight.dtype}, and these are {x.dtype}"
    return None


def ffn_weights(experts: Any, x: Tensor) -> FFNWeights:
    """The weights of a stack that `why_not_ffn` has nothing against."""
    inner, outer = experts.stacked.inner, experts.stacked.outer
    return FFNWeights(inner.weight, inner.bias, outer.weight, outer.bias, experts.stacked.activation, format_of(x))
