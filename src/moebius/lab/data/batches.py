"""Batches straight from tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Split


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a split.

    Arguments:
        x: (T, channels, size, size), float32 in [0, 1]; or rows of any shape, where the split has such.
        labels: (T,), 0 … C−1.
        domains: (T,), index of the set that the row comes from.
        rows: (T,), the row's position in its split.
    """

    x: Shaped[Tensor, "T ..."]
    labels: Int64[Tensor, "T"]
    domains: Int64[Tensor, "T"]
    rows: Int64[Tensor, "T"]

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """One epoch of batches, in an order that depends only on the number of rows, the seed and the epoch.

    The last batch holds what is left. The order is drawn on the CPU wherever the tensors are, so that it is the same.

    Arguments:
        split: what to draw from; with its tensors on a GPU no data is moved in between.
        batch_size: rows in a batch, at least 1.
        seed: at least 0.
        epoch: at least 0.
        start: skip so many batches, as a run does that goes on in the middle of an epoch; skipped ones cost nothing.
        device: where the batches go; None = where the split is.
        channels_last: lay images out with channels innermost, as convolutions on CPU and GPU like it.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(5, dtype=torch.int64)
        >>> split = Split(torch.zeros((5, 1, 8, 8), dtype=torch.uint8), zeros, zeros)
        >>> [len(batch) for batch in Batches(split, batch_size=2, seed=0, epoch=0)]
        [2, 2, 1]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        epoch: int,
        start: int = 0,
        device: torch.device | str | None = None,
        channels_last: bool = False,
    ):
        total = _count(split, batch_size)
        for name, value in (("seed", seed), ("epoch", epoch)):
            if value < 0:
                raise ArgumentError(name, "must be at least 0", value, f"{name}: 0")
        if not 0 <= start <= total:
            raise ArgumentError("start", f"must be 0 … {total}, the number of batches", start, "start: 0")
        self.split, self.batch_size, self.start = split, batch_size, start
        self.seed, self.epoch = seed, epoch
        self.device, self.channels_last = device, channels_last
        self._count = total - start

    def __len__(self) -> int:
        return self._count

    @property
    def order(self) -> Int64[Tensor, "T"]:
        """The epoch's order of all rows, on the CPU."""
        return torch.from_numpy(np.random.default_rng([self.seed, self.epoch]).permutation(len(self.split)))

    def __iter__(self) -> Iterator[Batch]:
        images = self.split.images
        order = self.order[self.start * self.batch_size :].to(images.device)
        labels, domains = self.split.labels[order], self.split.domains[order]
        for first in range(0, len(order), self.batch_size):
            part = slice(first, first + self.batch_size)
            rows = order[part]
            chosen = images.index_select(0, rows)
            yield _batch(chosen, labels[part], domains[part], rows, self.device, self.channels_last)


def in_order(
    split: Split, batch_size: int, device: torch.device | str | None = None, channels_last: bool = False
) -> Iterator[Batch]:
    """Batches of all rows in the split's own order, as evaluation wants them.

    Arguments:
        split, batch_size, device, channels_last: as in `Batches`.
    """
    _count(split, batch_size)
    every = torch.arange(len(split), device=split.images.device)
    return (
        _batch(split.images[part], split.labels[part], split.domains[part], every[part], device, channels_last)
        for part in (slice(first, first + batch_size) for first in range(0, len(split), batch_size))
    )


def scale(images: Shaped[Tensor, "T ..."], channels_last: bool = False) -> Shaped[Tensor, "T ..."]:
    """Pixels of 0 … 255 to float32 in [0, 1]: x / 255. What is no uint8 stays as it is."""
    layout = torch.channels_last if channels_last and images.ndim == 4 else torch.contiguous_format
    if images.dtype != torch.uint8:
        return images.contiguous(memory_format=layout)
    return images.to(torch.float32, memory_format=layout).div_(255)


def _batch(
    images: Tensor, labels: Tensor, domains: Tensor, rows: Tensor, device: torch.device | str | None, last: bool
) -> Batch:
    if device is not None:
        # Bytes travel, not floats: a quarter of the traffic.
        images, labels, domains, rows = (each.to(device, non_blocking=True) for each in (images, labels, domains, rows))
    return Batch(scale(images, last), labels, domains, rows)


def _count(split: Split, batch_size: int) -> int:
    if batch_size < 1:
        raise ArgumentError("batch_size", "must be at least 1", batch_size, "batch_size: 128")
    return -(-len(split) // batch_size)
