"""Batched products of several experts at once, their rows padded to a common number."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from moebius.execution._ffn import FFNWeights
from moebius.execution._segments.contract import Gradients, Layout, add_product, split_into_blocks
from moebius.networks.feed_forward import feed_forward_activation, feed_forward_activation_backward

# Values of a batch's hidden layer, at most: 64 MiB in bf16.
_BATCH_SIZE = 2**25
# Numbers of rows are rounded up to a multiple of this one. oneDNN compiles a kernel for each shape that it meets and
# keeps 1,024 of them: with each expert's own number of rows, a step would wait for compilations.
_MULTIPLE = 16
# A batch is halved until its padding is at most this share of its rows, or so many rows for each expert with rows.
_SHARE, _SPARE_ROWS = 0.25, 16


class Padded(Layout):
    """Consecutive experts in batched products.

    Arguments:
        counts: the number of rows of each expert.
        width: of the hidden layer.
        device: of the rows.
    """

    def __init__(self, counts: Sequence[int], width: int, device: torch.device):
        self.batches = list(_batches(counts, width))
        self.places_by_expert = [0] * len(counts)
        for batch in self.batches:
            for expert in range(batch.experts.start, batch.experts.stop):
                self.places_by_expert[expert] += batch.padded_rows
        if sum(self.places_by_expert) > sum(counts):
            self.source_P, self.place_A = _arrange(self.batches, device)

    @staticmethod
    def capacity(assignments: int, experts: int) -> int:
        """A quarter more than the assignments, and some rows for each expert."""
        return assignments + assignments // 4 + _SPARE_ROWS * experts

    def forward(self, weights: FFNWeights, x: Tensor, hidden: Tensor | None, y: Tensor) -> None:
        """Write the outputs, and what the backward pass needs."""
        for batch, places in self._places():
            inner, inner_bias, outer, outer_bias = weights.slice(batch.experts)
            out = None if hidden is None else batch.split(hidden[places])
            values = _product(batch.split(x[places]), inner.transpose(1, 2), inner_bias, out)
            values = feed_forward_activation(weights.activation, values)
            _product(values, outer.transpose(1, 2), outer_bias, batch.split(y[places]))

    def backward(self, weights: FFNWeights, x: Tensor, hidden: Tensor, upstream: Tensor, gradients: Gradients) -> None:
        """Write the gradients."""
        for batch, places in self._places():
            inner, _, outer, _ = weights.slice(batch.experts)
            preactivation, upstream_batch = batch.split(hidden[places]), batch.split(upstream[places])
            values = torch.bmm(upstream_batch, outer)
            values = feed_forward_activation_backward(weights.activation, preactivation, values)
            if gradients.rows is not None:
                torch.bmm(values, inner, out=batch.split(gradients.rows[places]))
            if gradients.outer is not None:
                activated = feed_forward_activation(weights.activation, preactivation)
                batch.add_product(gradients.outer, upstream_batch, activated)
            if gradients.inner is not None:
                batch.add_product(gradients.inner, values, batch.split(x[places]))
            if gradients.inner_bias is not None:
                gradients.inner_bias[batch.experts] += values.sum(1, dtype=gradients.inner_bias.dtype)

    def _places(self) -> Iterator[tuple["_Batch", slice]]:
        """Each batch and its places."""
        begin = 0
        for batch in self.batches:
            end = begin + len(batch.counts) * batch.padded_rows
            yield batch, slice(begin, end)
            begin = end


class _Batch(NamedTuple):
    """Consecutive experts and their rows.

    Arguments:
        experts: their numbers.
        begin: the number of the first of their sorted rows.
        counts: the number of rows of each.
        padded_rows: rows of each, with the padding.
        is_first: whether these are the first rows of these experts.
    """

    experts: slice
    begin: int
    counts: Sequence[int]
    padded_rows: int
    is_first: bool

    def split(self, values: Tensor) -> Tensor:
        """The values at this batch's places, (experts, padded rows, …)."""
        return values.unflatten(0, (-1, self.padded_rows))

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """Write leftᵀ · right of each expert to its part of `total`, or add it after the first rows."""
        part = total[self.experts]
        if len(part) == 1:
            add_product(part[0], left[0].t(), right[0], self.is_first)
        elif part.dtype == left.dtype:
            torch.bmm(left.transpose(1, 2), right, out=part)
        else:
            part.copy_(torch.bmm(left.transpose(1, 2), right))


def _batches(counts: Sequence[int], width: int) -> Iterator[_Batch]:
    """The experts in batches; those whose experts have no rows are left out."""
    begin = 0
    for first, last in _ranges(counts, width):
        part = counts[first:last]
        if len(part) == 1:
            for _, start, end, is_first in split_into_blocks(part):
                yield _Batch(slice(first, last), begin + start, [end - start], _round_up(end - start), is_first)
        elif any(part):
            yield _Batch(slice(first, last), begin, part, _round_up(max(part)), True)
        begin += sum(part)


def _arrange(batches: Sequence[_Batch], device: torch.device) -> tuple[Tensor, Tensor]:
    """`source_P` and `place_A` of these batches."""
    lanes: list[tuple[int, int, int]] = []  # of each expert in each batch: the first row, their number, with padding
    for batch in batches:
        begin = batch.begin
        for count in batch.counts:
            lanes.append((begin, count, batch.padded_rows))
            begin += count
    begin_L, count_L, padded_L = torch.tensor(lanes, device=device).unbind(1)
    places = sum(padded for *_, padded in lanes)
    lane_P = torch.arange(len(lanes), device=device).repeat_interleave(padded_L, output_size=places)
    number_P = torch.arange(places, device=device) - (padded_L.cumsum(0) - padded_L)[lane_P]
    # Padding repeats the expert's last row: where that is not finite, the expert's gradients are not finite anyway.
    last_P = count_L[lane_P] - 1
    source_P = (begin_L[lane_P] + torch.minimum(number_P, last_P)).clamp(min=0)
    return source_P, (number_P <= last_P).nonzero().squeeze(1)


def _ranges(counts: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Ranges of experts, halved until each is small enough and its padding is; `width` is that of a hidden layer."""
    ranges, result = [(0, len(counts))], []
    while ranges:
        first, last = ranges.pop()
        rows, padded = sum(counts[first:last]), (last - first) * _round_up(max(counts[first:last], default=0))
        active = sum(count > 0 for count in counts[first:last])
        wasteful = padded - rows > max(_SHARE * rows, _SPARE_ROWS * active)
        if last - first > 1 and (padded * width > _BATCH_SIZE or wasteful):
            middle = (first + last) // 2
            ranges += [(middle, last), (first, middle)]
        else:
            result.append((first, last))
    return result


def _round_up(rows: int) -> int:
    return -(-rows // _MULTIPLE) * _MULTIPLE


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None) -> Tensor:
    if bias is None:
        return torch.bmm(x, weight, out=out)  # type: ignore[call-overload]
    return torch.baddbmm(bias.unsqueeze(1), x, weight, out=out)  # type: ignore[call-overload]
