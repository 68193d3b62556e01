"""A data set in memory: tensors of inputs, targets and domains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Optional

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.nested import map_nested, tensors_of
from moebius.lab.data.scale import UNIT, PixelScale, check_scale

if TYPE_CHECKING:
    from moebius.lab.data.tables.columns import TableColumns


@dataclass(frozen=True)
class Split:
    """The rows of one split: row t is image `images[t]` of class `labels[t]` from set `domains[t]`.

    Arguments:
        images: (T, channels, size, size), uint8, 0 … 255, which batches scale; or rows of any shape as other numbers,
            which the model receives unscaled; or a tuple or mapping of such tensors.
        labels: (T,), class of each row, 0 … C−1; or the targets of another task, one tensor or several by name.
        domains: (T,), index of the set that each row comes from.
        scale: of uint8 pixels.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(3, dtype=torch.int64)
        >>> len(Split(torch.zeros((3, 1, 8, 8), dtype=torch.uint8), zeros, zeros).take(torch.tensor([2, 0])))
        2
    """

    images: Any
    labels: Any
    domains: Int64[Tensor, "T"]
    scale: PixelScale = UNIT

    def __len__(self) -> int:
        return len(self.domains)

    def take(self, index: Int[Tensor, "rows"] | slice) -> "Split":
        """The rows at the positions `index`, in this order."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> "Split":
        """The split with all tensors on `device`; tensors that are on it already are not copied."""
        return self._map(lambda tensor: tensor.to(device))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.domains.device

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Split":
        columns = (map_nested(self.images, function), map_nested(self.labels, function), function(self.domains))
        return Split(*columns, self.scale)


@dataclass(frozen=True)
class Dataset:
    """The splits of one or several combined sets.

    Arguments:
        train: rows to train on.
        validation: rows held out of the training rows; None = none.
        test: rows to test on.
        classes: names of the classes; a label is a position in it.
        domains: names of the combined sets; a row's domain is a position in it.
        fingerprint: hash that changes whenever an image, a label, a name or the choice of rows changes.
        columns: how rows of a table become the rows of the splits; None where the data are no table.
        targets: name of each target of a table → names of a model's outputs for it: the classes, or the target itself.
        outputs: number of a model's outputs where it is not that of the classes; by name for several targets.
    """

    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    fingerprint: str
    columns: Optional["TableColumns"] = None
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: int | Mapping[str, int] | None = None

    def to(self, device: torch.device | str) -> "Dataset":
        """The data on a device; a split that stands for two is moved once."""
        splits = {
            id(split): split.to(device) for split in (self.train, self.validation, self.test) if split is not None
        }
        return self._with_splits(splits)

    @property
    def scale(self) -> PixelScale:
        """The scale of uint8 pixels."""
        return self.train.scale

    def with_scale(self, scale: str | PixelScale) -> "Dataset":
        """The same rows, whose pixels models get on another scale; the fingerprint, which is of the rows, stays.

        Arguments:
            scale: unit, raw, signed, standardised (by mean and deviation of the training rows), or a finished scale.

        Raises:
            ArgumentError: there is no such scale, or the rows are no images of uint8 pixels.

        Example:
            >>> import torch
            >>> zeros = torch.zeros(3, dtype=torch.int64)
            >>> split = Split(torch.zeros((3, 1, 8, 8), dtype=torch.uint8), zeros, zeros)
            >>> Dataset(split, None, split, ("a",), ("set",), "").with_scale("raw").test.scale.kind
            'raw'
        """
        if not isinstance(scale, PixelScale):
            check_scale(scale)
        kind = scale.kind if isinstance(scale, PixelScale) else scale
        if scale in (self.scale, self.scale.kind):
            return self
        dtypes = [tensor.dtype for tensor in tensors_of(self.train.images)]
        if kind != "unit" and not (isinstance(self.train.images, Tensor) and dtypes == [torch.uint8]):
            rule = "is of images of uint8 pixels, one tensor, and these rows are other numbers"
            raise ArgumentError("scale", rule, kind, "scale: unit")
        scale = scale if isinstance(scale, PixelScale) else PixelScale.measure(scale, self.train.images)
        splits = {
            id(split): replace(split, scale=scale)
            for split in (self.train, self.validation, self.test)
            if split is not None
        }
        return self._with_splits(splits)

    def _with_splits(self, splits: Mapping[int, Split]) -> "Dataset":
        """The data with other splits, by the identity of those that they replace; one that stands for two is one."""
        validation = None if self.validation is None else splits[id(self.validation)]
        return replace(self, train=splits[id(self.train)], validation=validation, test=splits[id(self.test)])

    @property
    def has_test(self) -> bool:
        """Whether there are test rows; False where the held-out or the training rows stand for them."""
        return self.test is not self.validation and self.test is not self.train

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of rows in figures by domain: the domains, or "all" where there is one domain."""
        return self.domains if len(self.domains) > 1 else ("all",)

    @property
    def facts(self) -> dict[str, Any]:
        """What constructors of components take from the data: features, classes and domains.

        `classes` is the number of a model's outputs; for several targets there is also `outputs`, their number by name.
        Data with a class for each position of a row have `positions`, the axes of these. Images also have channels and
        size; a table has cardinalities, the number of codes of each category column.
        These columns stand last in a row, so that features − len(cardinalities) columns hold numbers.
        """
        shape = self.train.images.shape[1:]
        outputs = len(self.classes) if self.outputs is None else self.outputs
        by_name = {"outputs": dict(outputs)} if isinstance(outputs, Mapping) else {}
        if self.classes and self.train.labels.ndim > 1:
            by_name = {"positions": list(self.train.labels.shape[1:])}
        count = outputs if isinstance(outputs, int) else sum(outputs.values())
        shared = {"features": prod(shape), "classes": count, "domains": len(self.domains), **by_name}
        if self.columns is not None:
            return {**shared, "cardinalities": self.columns.cardinalities}
        return {"features": prod(shape), "channels": shape[0], "size": shape[-1], **shared}
