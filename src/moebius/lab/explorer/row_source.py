"""The rows that the explorer shows, and what the model makes of some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Split
from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.predict.forward import needs_domain
from moebius.lab.predict.subject import Subject
from moebius.lab.training.gate_places import GatePlace, find_gates

# Classes of which a row has its probabilities.
TOP = 5


@dataclass(frozen=True)
class RowSource:
    """The rows of a split, and the model that they are for.

    Arguments:
        subject: the model.
        split: the rows.
        name: of the split, such as "test".
        domains: names of the data sets that the rows come from.
        columns: of a table.
    """

    subject: Subject
    split: Split
    name: str = "test"
    domains: tuple[str, ...] = ()
    columns: TableColumns | None = None

    def __len__(self) -> int:
        return len(self.split)

    def sample(self, most: int, seed: int = 0) -> list[int]:
        """At most so many of the rows, drawn by a seed, in their order.

        Raises:
            ArgumentError: `most` is below 1.
        """
        if most < 1:
            raise ArgumentError("rows", "needs at least 1", most, "rows=2000")
        if len(self) <= most:
            return list(range(len(self)))
        return np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)).tolist()

    def explain(self, numbers: Sequence[int], keeps_outputs: bool = False) -> ExplainedRows:
        """What the model makes of some rows of the split.

        Arguments:
            numbers: their positions.
            keeps_outputs: whether the passes keep the outputs along every route.

        Raises:
            ArgumentError: there is no such row.
        """
        for number in numbers:
            if not 0 <= number < len(self):
                raise ArgumentError("row", f"needs a number 0 … {len(self) - 1}", number, f"{self.name}:0")
        taken = self.split.take(torch.tensor(numbers, device=self.split.device))
        with self.lock:
            x, context, _ = self.subject.read(taken.images, taken.domains)
            names = [f"{self.name}:{number}" for number in numbers]
            options = {"top": TOP, "keeps_outputs": keeps_outputs}
            return ExplainedRows(self.subject, x, context, names, taken.labels, **options)

    def explain_new(self, x: Any, name: str, label: Any = None, domain: str | None = None) -> ExplainedRows:
        """What the model makes of a row that is not among these.

        Arguments:
            x: what `Subject.read` takes, of one row.
            name: of the row.
            label: a class by name, or numbers; None where it is not known.
            domain: of the row, for gates that route by it.

        Raises:
            ArgumentError, DataError: the row, the label or the domain does not fit the model.
        """
        with self.lock:
            rows, context, _ = self.subject.read(x, domain)
            return ExplainedRows(self.subject, rows, context, [name], label, TOP, keeps_outputs=True)

    @cached_property
    def lock(self) -> Lock:
        """Held while the model runs: another route is taken by changing its routers."""
        return Lock()

    @cached_property
    def gates(self) -> list[GatePlace]:
        """The gates that choose among several experts, the outer ones first."""
        return [place for place in find_gates(self.subject.model) if place.count > 1]

    @property
    def needs_domain(self) -> bool:
        """Whether a gate or an expert reads the domain of a row."""
        return needs_domain(self.subject.model)

    @property
    def are_pictures(self) -> bool:
        """Whether rows are pictures of one channel or three."""
        images = self.split.images
        return isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3)
