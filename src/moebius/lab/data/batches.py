"""Batches cut from the tensors of a split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.nested import map_nested
from moebius.lab.data.scale import UNIT, PixelScale
from moebius.lab.data.split import Split


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a split.

    Arguments:
        x: inputs of the model: (T, channels, size, size), float32 on the split's scale, which is [0, 1] unless another
            was chosen; for a split of other rows, these rows, of any shape, or a tuple or mapping of them.
        labels: (T,), class of each row, 0 … C−1, or the targets of another task.
        domains: (T,), index of the set that each row comes from.
        rows: (T,), position of each row in its split.
    """

    x: Any
    labels: Any
    domains: Int64[Tensor, "T"]
    rows: Int64[Tensor, "T"]

    def __len__(self) -> int:
        return len(self.domains)

    def of_run(self, run: int, runs: int) -> "Batch":
        """The rows of one of several runs, whose rows are in the batch in turn."""
        columns = (self.x, self.labels, self.domains, self.rows)
        return Batch(*map_nested(columns, lambda values: values.unflatten(0, (runs, len(values) // runs))[run]))

    def of_process(self, rank: int, count: int, runs: int) -> "Batch":
        """The rows of one of `count` processes: of the rows of each run an interval, which may be empty.

        Example:
            >>> x = torch.arange(5)
            >>> [Batch(x, x, x, x).of_process(rank, 3, 1).x.tolist() for rank in range(3)]
            [[0, 1], [2, 3], [4]]
        """
        rows = len(self) // runs
        place = slice(-(-rows * rank // count), -(-rows * (rank + 1) // count))

        def take(values: Tensor) -> Tensor:
            return values[place] if runs == 1 else values.unflatten(0, (runs, rows))[:, place].flatten(0, 1)

        return Batch(*map_nested((self.x, self.labels, self.domains, self.rows), take))


class Batches:
    """One epoch of batches, in an order that depends only on the number of rows, the seed and the epoch.

    The last batch holds the remaining rows and may be smaller. The order is drawn on the CPU, so that it is the same
    for splits on every device.

    Arguments:
        split: the rows. Where its tensors are on a GPU, no data move between devices.
        batch_size: rows in a batch, at least 1.
        seed: seed of the order, at least 0; several for as many runs, each in its order: a batch then holds
            `batch_size` rows for each run, those of the first run first.
        epoch: number of the epoch, at least 0.
        start: number of batches to skip, for a run that resumes in the middle of an epoch; a skipped batch costs
            nothing.
        device: device of the batches; None = the split's.
        channels_last: give images the channels-last memory format, in which convolutions are faster.
        augmentations: functions of images in [0, 1], applied to each batch as it is made, before the split's scale.

    Raises:
        ArgumentError: a number outside its range.

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
        seed: int | Sequence[int],
        epoch: int,
        start: int = 0,
        device: torch.device | str | None = None,
        channels_last: bool = False,
        augmentations: Sequence[Callable[[Tensor], Tensor]] = (),
    ):
        total = _count_batches(split, batch_size)
        self.seeds = [seed] if isinstance(seed, int) else list(seed)
        for name, value in (*(("seed", each) for each in self.seeds), ("epoch", epoch)):
            if value < 0:
                raise ArgumentError(name, "must be at least 0", value, f"{name}: 0")
        if not 0 <= start <= total:
            raise ArgumentError("start", f"must be 0 … {total}, the number of batches", start, "start: 0")
        self.split, self.batch_size, self.start = split, batch_size, start
        self.epoch = epoch
        self.device, self.channels_last, self.augmentations = device, channels_last, augmentations
        self._count = total - start

    def __len__(self) -> int:
        return self._count

    @property
    def order(self) -> Int64[Tensor, "S T"]:
        """For each seed the positions of all rows in the epoch's order, on the CPU."""
        orders = [np.random.default_rng([seed, self.epoch]).permutation(len(self.split)) for seed in self.seeds]
        return torch.from_numpy(np.stack(orders))

    def __iter__(self) -> Iterator[Batch]:
        order = self.order[:, self.start * self.batch_size :].to(self.split.device)
        columns = (map_nested(self.split.labels, lambda column: column[order]), self.split.domains[order], order)
        for first in range(0, order.shape[1], self.batch_size):
            place = slice(first, first + self.batch_size)
            labels, domains, rows = map_nested(columns, lambda column, place=place: column[:, place].flatten(0, 1))
            images = map_nested(self.split.images, lambda column, rows=rows: column.index_select(0, rows))
            piece = Split(images, labels, domains, self.split.scale)
            yield _make_batch(piece, rows, self.device, self.channels_last, self.augmentations)


def ordered_batches(
    split: Split, batch_size: int, device: torch.device | str | None = None, channels_last: bool = False
) -> Iterator[Batch]:
    """Batches of all rows in the split's own order, for evaluation.

    Arguments:
        split, batch_size, device, channels_last: as in `Batches`.

    Raises:
        ArgumentError: `batch_size` is below 1.
    """
    _count_batches(split, batch_size)
    rows = torch.arange(len(split), device=split.device)
    intervals = (slice(first, first + batch_size) for first in range(0, len(split), batch_size))
    return (_make_batch(split.take(interval), rows[interval], device, channels_last) for interval in intervals)


def scale_pixels(
    images: Shaped[Tensor, "T ..."], channels_last: bool = False, scale: PixelScale = UNIT
) -> Shaped[Tensor, "T ..."]:
    """Scale uint8 pixels 0 … 255 to float32: x / 255, then `scale`. Tensors of another dtype keep their values."""
    layout = torch.channels_last if channels_last and images.ndim == 4 else torch.contiguous_format
    if images.dtype != torch.uint8:
        return images.contiguous(memory_format=layout)
    return scale(images.to(torch.float32, memory_format=layout).div_(255))


def _make_batch(
    rows: Split,
    numbers: Tensor,
    device: torch.device | str | None,
    channels_last: bool,
    augmentations: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Batch:
    """Move the tensors to `device`; then images become numbers in [0, 1], are augmented, and get their scale."""
    columns = (rows.images, rows.labels, rows.domains, numbers)
    if device is not None:
        # uint8 pixels are moved and scaled on the device: a quarter of the bytes of float32.
        columns = map_nested(columns, lambda tensor: tensor.to(device, non_blocking=True))
    images, *others = columns
    x = map_nested(images, lambda tensor: scale_pixels(tensor, channels_last))
    x = apply_augmentations(x, augmentations) if augmentations else x
    are_pixels = isinstance(images, Tensor) and images.dtype == torch.uint8
    return Batch(rows.scale(x) if are_pixels else x, *others)


def _count_batches(split: Split, batch_size: int) -> int:
    """Number of batches in an epoch."""
    if batch_size < 1:
        raise ArgumentError("batch_size", "must be at least 1", batch_size, "batch_size: 128")
    return -(-len(split) // batch_size)
