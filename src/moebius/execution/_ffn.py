"""The weights of stacked feed-forward experts, for executions that are written for them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.execution._layers import stacked_weights
from moebius.execution._pool import Pool
from moebius.execution.grouped import product_dtype
from moebius.experts.ffn import FFN


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


def ffn_obstacle(pool: Pool, x: Tensor) -> str | None:
    """Why an execution for stacked feed-forward experts cannot run these, as the end of a sentence; else None."""
    if pool.stack is None or type(pool.first) is not FFN:
        return "needs a stack of feed-forward experts: mb.Stack of mb.experts.FFN"
    why = pool.refuses_rows(x)
    if why is not None:
        return why
    weight, _ = stacked_weights(pool.stack, pool.first.inner)
    if x.dtype != weight.dtype and product_dtype(x) == x.dtype:
        return f"needs rows in the experts' number format, {weight.dtype}, and these are {x.dtype}"
    return None


def ffn_weights(pool: Pool, x: Tensor) -> FFNWeights:
    """The weights of a pool that `ffn_obstacle` has nothing against."""
    stack, expert = pool.stack, pool.first
    assert stack is not None
    assert isinstance(expert, FFN)
    inner, outer = stacked_weights(stack, expert.inner), stacked_weights(stack, expert.outer)
    return FFNWeights(*inner, *outer, expert.activation, product_dtype(x))
