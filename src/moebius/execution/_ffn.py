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
    """The parameters of E experts of kind ffn; M = 2 for gated activations, else 1."""

    inner: Float[Tensor, "E MH D"]
    inner_bias: Float[Tensor, "E MH"] | None
    outer: Float[Tensor, "E D H"]
    outer_bias: Float[Tensor, "E D"] | None
    activation: str
    dtype: torch.dtype

    def cast(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """The tensors, cast to `dtype`, the number format of the products."""
        biases = [None if bias is None else bias.to(self.dtype) for bias in (self.inner_bias, self.outer_bias)]
        return self.inner.to(self.dtype), biases[0], self.outer.to(self.dtype), biases[1]


def ffn_obstacle(pool: Pool, x: Tensor) -> str | None:
    """Why an execution for stacked feed-forward experts cannot run this pool, as the end of a sentence; else None."""
    if pool.stack is None or type(pool.template) is not FFN:
        return "needs a stack of feed-forward experts: mb.Stack of mb.experts.FFN"
    reason = pool.refuses_rows(x)
    if reason is not None:
        return reason
    weight, _ = stacked_weights(pool.stack, pool.template.inner)
    if x.dtype != weight.dtype and product_dtype(x) == x.dtype:
        return f"needs rows in the experts' number format, {weight.dtype}, and these are {x.dtype}"
    return None


def ffn_weights(pool: Pool, x: Tensor) -> FFNWeights:
    """The weights of a pool for which `ffn_obstacle` gives None."""
    stack, expert = pool.stack, pool.template
    assert stack is not None
    assert isinstance(expert, FFN)
    inner, outer = stacked_weights(stack, expert.inner), stacked_weights(stack, expert.outer)
    return FFNWeights(*inner, *outer, expert.activation, product_dtype(x))
