"""Stacked feed-forward experts: their weights, and their operator, for executions that are written for them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.routing import Selection
from moebius.execution._layers import stacked_weights
from moebius.execution._order import sort_by_expert
from moebius.execution._pool import Pool
from moebius.execution.grouped import product_dtype
from moebius.experts.ffn import FFN


class ExpertWeights(NamedTuple):
    """The parameters of one expert, or of several consecutive ones, in the number format of the products."""

    inner: Tensor
    inner_bias: Tensor | None
    outer: Tensor
    outer_bias: Tensor | None


@dataclass(frozen=True)
class FFNWeights:
    """The parameters of E experts of kind ffn; M = 2 for gated activations, else 1."""

    inner: Float[Tensor, "E MH D"]
    inner_bias: Float[Tensor, "E MH"] | None
    outer: Float[Tensor, "E D H"]
    outer_bias: Float[Tensor, "E D"] | None
    activation: str
    dtype: torch.dtype

    def cast(self) -> ExpertWeights:
        """The parameters of all experts, cast to `dtype`, the number format of the products."""
        return self.slice(slice(None))

    def slice(self, experts: slice) -> ExpertWeights:
        """The parameters of consecutive experts, cast to `dtype`; those of the others are not cast."""
        biases = (None if bias is None else bias[experts].to(self.dtype) for bias in (self.inner_bias, self.outer_bias))
        inner, outer = self.inner[experts].to(self.dtype), self.outer[experts].to(self.dtype)
        return ExpertWeights(inner, next(biases), outer, next(biases))

    def by_expert(self) -> "_CastByExpert":
        """The parameters of each expert, cast when it is read."""
        return _CastByExpert(self)


class _CastByExpert:
    """The parameters of each expert in the number format of the products; those read last are kept."""

    def __init__(self, weights: FFNWeights):
        # unbind of all experts is faster than indexing one by one. Biases are small enough to be cast at once.
        biases = [None if bias is None else bias.to(weights.dtype) for bias in (weights.inner_bias, weights.outer_bias)]
        parts = (weights.inner, biases[0], weights.outer, biases[1])
        self.parts: list[Any] = [[None] * len(weights.inner) if part is None else part.unbind() for part in parts]
        self.dtype, self.number = weights.dtype, -1
        self.expert: ExpertWeights | None = None

    def __getitem__(self, number: int) -> ExpertWeights:
        if number != self.number or self.expert is None:
            inner, inner_bias, outer, outer_bias = (part[number] for part in self.parts)
            self.expert = ExpertWeights(inner.to(self.dtype), inner_bias, outer.to(self.dtype), outer_bias)
            self.number = number
        return self.expert


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


def run_ffn(pool: Pool, x: Tensor, selection: Selection, weight_A: Tensor | None, padded: bool = False) -> Tensor:
    """`run_weights` of a pool for which `ffn_obstacle` gives None."""
    return run_weights(ffn_weights(pool, x), x.flatten(1), selection, weight_A, padded)


def run_weights(
    weights: FFNWeights, x: Float[Tensor, "T D"], selection: Selection, weight_A: Tensor | None, padded: bool = False
) -> Tensor:
    """The experts on their rows: each row's weighted sum (T, D), or without weights each assignment's output (A, D).

    Arguments:
        weights: of all experts.
        x: T rows.
        selection: which expert runs on which row.
        weight_A: the router's weights; None for unweighted outputs.
        padded: whether several experts are one batched product.
    """
    # Imported here: defining an operator imports much of torch's compiler, which most mixtures do not need.
    from moebius.execution._sorted_ffn import sorted_ffn

    order, counts = sort_by_expert(selection.expert_A, selection.kept_A, len(weights.inner))
    tensors = (weights.inner, weights.inner_bias, weights.outer, weights.outer_bias)
    flags = (weights.activation, weights.dtype, padded, torch.is_grad_enabled())
    y, *_ = sorted_ffn(x, *tensors, selection.row_A, weight_A, order, counts, *flags)
    return y
