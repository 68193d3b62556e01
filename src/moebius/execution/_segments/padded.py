"""Batched products of several experts at once, their rows padded with zeros to a common number."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from moebius.execution._segments.contract import Gradients, Layout, Segments, add_product, split_into_blocks
from moebius.networks.feed_forward import feed_forward_activation, feed_forward_activation_backward

# Values of a batch's hidden layer, at most: 64 MiB in bf16.
_BATCH_SIZE = 2**25
# Numbers of rows are rounded up to a multiple of this one. oneDNN compiles a kernel for each shape that it meets and
# keeps 1,024 of them: with each expert's own number of rows, a step would wait for compilations.
_MULTIPLE = 16
# A batch is halved until its padding is at most this share of its rows, or so many rows for each expert with rows.
_SHARE, _SPARE_ROWS = 0.25, 16


class Padded(Layout):
    """Consecutive experts in batched products."""

    def forward(self, segments: Segments, hidden: Tensor | None, outputs: Tensor) -> None:
        """Write the outputs, and what the backward pass needs."""
        weights = segments.weights
        for batch in _batches(segments.counts, weights.inner.shape[1], segments.rows.device):
            inner, inner_bias, outer, outer_bias = weights.slice(batch.experts)
            values = _product(batch.pad(segments.rows), inner.transpose(1, 2), inner_bias)
            if hidden is not None:
                batch.strip(values, hidden)
            values = feed_forward_activation(weights.activation, values)
            batch.strip(_product(values, outer.transpose(1, 2), outer_bias), outputs)

    def backward(self, segments: Segments, hidden: Tensor, upstream: Tensor, gradients: Gradients) -> None:
        """Write the gradients."""
        weights = segments.weights
        for batch in _batches(segments.counts, weights.inner.shape[1], segments.rows.device):
            inner, _, outer, _ = weights.slice(batch.experts)
            preactivation, padded = batch.pad(hidden), batch.pad(upstream)
            values = torch.bmm(padded, outer)
            values = feed_forward_activation_backward(weights.activation, preactivation, values)
            if gradients.rows is not None:
                batch.strip(torch.bmm(values, inner), gradients.rows)
            if gradients.outer is not None:
                activated = feed_forward_activation(weights.activation, preactivation)
                batch.add_product(gradients.outer, padded, activated)
            if gradients.inner is not None:
                batch.add_product(gradients.inner, values, batch.pad(segments.rows))
            if gradients.inner_bias is not None:
                gradients.inner_bias[batch.experts] += values.sum(1, dtype=gradients.inner_bias.dtype)


class _Batch(NamedTuple):
    """Consecutive experts and their rows.

    Arguments:
        experts: their numbers.
        rows: the places of their rows among all.
        places: the places of these rows among the padded ones (experts · rows an expert); None where nothing is padded.
        padded_rows: rows an expert, with the padding.
        is_first: whether these are the first rows of these experts.
    """

    experts: slice
    rows: slice
    places: Tensor | None
    padded_rows: int
    is_first: bool

    def pad(self, rows: Tensor) -> Tensor:
        """These experts' rows, (experts, padded rows, …), with zeros after the last row of each."""
        selected = rows[self.rows]
        if self.places is not None:
            count = (self.experts.stop - self.experts.start) * self.padded_rows
            padded = selected.new_zeros(count, selected.shape[1])
            selected = padded.index_copy_(0, self.places, selected)
        return selected.unflatten(0, (-1, self.padded_rows))

    def strip(self, padded: Tensor, out: Tensor) -> None:
        """Write the rows of a padded tensor to their places among all rows."""
        if self.places is None:
            out[self.rows] = padded.flatten(0, 1)
        else:
            torch.index_select(padded.flatten(0, 1), 0, self.places, out=out[self.rows])

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """Write leftᵀ · right of each expert to its part of `total`, or add it after the first rows."""
        part = total[self.experts]
        if len(part) == 1:
            add_product(part[0], left[0].t(), right[0], self.is_first)
        elif part.dtype == left.dtype:
            torch.bmm(left.transpose(1, 2), right, out=part)
        else:
            part.copy_(torch.bmm(left.transpose(1, 2), right))


def _batches(counts: Sequence[int], width: int, device: torch.device) -> Iterator[_Batch]:
    """The experts in batches; those whose experts have no rows are left out."""
    begin = 0
    for first, last in _ranges(counts, width):
        part = counts[first:last]
        if len(part) == 1:
            for _, start, end, is_first in split_into_blocks(part):
                yield _make_batch(slice(first, last), begin + start, [end - start], is_first, device)
        elif any(part):
            yield _make_batch(slice(first, last), begin, part, True, device)
        begin += sum(part)


def _make_batch(experts: slice, begin: int, counts: Sequence[int], is_first: bool, device: torch.device) -> _Batch:
    rows, padded_rows = sum(counts), _round_up(max(counts))
    places = None
    if rows < padded_rows * len(counts):
        count_E = torch.tensor(counts, device=device)
        shift_E = torch.arange(len(counts), device=device) * padded_rows - (count_E.cumsum(0) - count_E)
        places = torch.arange(rows, device=device) + shift_E.repeat_interleave(count_E, output_size=rows)
    return _Batch(experts, slice(begin, begin + rows), places, padded_rows, is_first)


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


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)
