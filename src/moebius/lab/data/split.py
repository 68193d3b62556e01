"""Images, labels and domains in memory."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Int, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """One split: row t is image `images[t]` of class `labels[t]` from set `domains[t]`.

    Arguments:
        images: (T, channels, size, size), uint8 of 0 … 255; or rows of any shape as floating-point numbers, which go to
            the model as they are.
        labels: (T,), 0 … C−1.
        domains: (T,), index of the set that the row comes from.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(3, dtype=torch.int64)
        >>> len(Split(torch.zeros((3, 1, 8, 8), dtype=torch.uint8), zeros, zeros).take(torch.tensor([2, 0])))
        2
    """

    images: Shaped[Tensor, "T ..."]
    labels: Int64[Tensor, "T"]
    domains: Int64[Tensor, "T"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int[Tensor, "rows"]) -> "Split":
        """The rows `index`, in its order."""
        return Split(self.images[index], self.labels[index], self.domains[index])

    def to(self, device: torch.device | str) -> "Split":
        """The same split with all tensors on `device`; tensors that are there already are not copied."""
        return Split(self.images.to(device), self.labels.to(device), self.domains.to(device))


@dataclass(frozen=True)
class Dataset:
    """The splits of one or several sets combined.

    Arguments:
        train: rows to train on.
        validation: rows held out of the training rows, or None.
        test: rows to test on.
        classes: names of the classes; a label is a position in it.
        domains: names of the combined sets; a row's domain is a position in it.
        fingerprint: changes whenever any image, label, name or choice of rows does.
    """

    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    fingerprint: str

    @property
    def groups(self) -> tuple[str, ...]:
        """What figures by data set call the domains: their names, or "all" where there is but one."""
        return self.domains if len(self.domains) > 1 else ("all",)

    @property
    def facts(self) -> dict[str, int]:
        """What components need to know of the data: features, channels, size, classes, domains."""
        shape = self.train.images.shape[1:]
        channels, size = shape[0], shape[-1]
        return {
            "features": prod(shape),
            "channels": channels,
            "size": size,
            "classes": len(self.classes),
            "domains": len(self.domains),
        }
