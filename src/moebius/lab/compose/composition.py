"""What `mb.compose` gives: all ways beside each other, and their models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pandas as pd
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.kit.files import write_json
from moebius.kit.registry import did_you_mean
from moebius.lab.compose.extension import EXTENDED, extend
from moebius.lab.compose.promises import abstain_below, cap_share
from moebius.lab.compose.recommend import Cost, cost_unit, find_front, recommend
from moebius.lab.compose.result import Result
from moebius.lab.compose.rows import Plan
from moebius.lab.compose.table import make_table
from moebius.lab.compose.thresholds import Threshold
from moebius.lab.compose.wording import as_html, as_text, facts_of
from moebius.lab.ways._pool import Pool
from moebius.storage.save import save


@dataclass(frozen=True, eq=False, repr=False)
class Composition:
    """All ways to compose trained networks, and what each is worth.

    Arguments:
        results: of all ways.
        recommended: the name of the way to take.
        pool: the networks, and their outputs for all rows.
        plan: the rows that ways were fitted to, and those that judged them.
        smaller: the composition that this one extends by a network; None for one that extends none.
    """

    results: tuple[Result, ...]
    recommended: str
    pool: Pool
    plan: Plan
    smaller: Optional["Composition"] = None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each way; see `make_table` for the columns."""
        return make_table(self.results)

    @property
    def networks(self) -> pd.DataFrame:
        """The score and the loss of each network by itself, on all rows."""
        columns = {"score": self.pool.scores().cpu().numpy(), "loss": self.pool.losses().cpu().numpy()}
        return pd.DataFrame(columns, index=pd.Index(self.pool.names, name="network"))

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The model of each way that was tried, in evaluation mode."""
        return {each.way: each.model for each in self.results if each.model is not None}

    @property
    def model(self) -> nn.Module:
        """The model of the recommended way, in evaluation mode."""
        return self.models[self.recommended]

    @property
    def front(self) -> list[str]:
        """The ways of which no other has a score as high at a lower cost, from the cheapest."""
        return find_front(self.results, cost_unit(self.results))

    def result(self, way: str | None = None) -> Result:
        """What became of one way.

        Arguments:
            way: its name; None for the recommended one.

        Raises:
            ArgumentError: no way is called so, or it was not tried.
        """
        name = self.recommended if way is None else way.replace("_", "-")
        for each in self.results:
            if each.way == name:
                if each.model is None:
                    raise ArgumentError("way", f"was not tried: {each.reason}", way, f"way={self.recommended!r}")
                return each
        raise ArgumentError("way", "no way is called so", way, did_you_mean(name, [each.way for each in self.results]))

    def recommend(self, cost: Cost = None) -> str:
        """The way to take at a cost: the cheapest that is not shown to be below the best of those that cost no more.

        Arguments:
            cost: as for `mb.compose`.

        Raises:
            ArgumentError: no way costs so little.
        """
        return recommend(self.results, cost)

    def at_most(self, share: float, expert: str | int) -> Threshold:
        """A cascade that sends a share of the rows at most to an expensive network.

        The best of the other networks answers; rows of which it is least sure go on. The threshold is the quantile of
        its confidence over all rows of the composition, to which no network was fitted.

        Arguments:
            share: of the rows, between 0 and 1.
            expert: name or number of the expensive network.

        Raises:
            ArgumentError: no such network, no other one that knows all classes, a task without classes, or a share out
                of range.
        """
        return cap_share(self, share, expert)

    def abstain(self, accuracy: float, level: float = 0.9, way: str | None = None) -> Threshold:
        """A model that gives no answer where it is unsure, so that the answers have this accuracy.

        The threshold is the lowest for which the judging rows show the accuracy, whatever the distribution of the rows
        (fixed sequence testing with exact binomial bounds, divided by the number of ways among which was chosen).

        Arguments:
            accuracy: of the rows that are answered, between 0 and 1.
            level: the chance at least with which the accuracy is kept.
            way: whose model; None for the recommended one.

        Raises:
            ArgumentError: the accuracy is not shown for any part of the rows, or a number is out of range.
        """
        return abstain_below(self, accuracy, level, way)

    def add(self, model: Any, name: str | None = None) -> "Composition":
        """The composition whose recommended model has one more network, the others as they are.

        A gate of two is trained: the model so far, and the new network, one of which answers a row. So a row that does
        not choose the new network has the same output to the bit, and `drop` gives the model back as it was.

        Arguments:
            model: as for `mb.compose`.
            name: of the network; unless given, its class and number.

        Raises:
            ArgumentError: its outputs do not fit, or the name is taken.
        """
        result, pool = extend(self, model, name)
        results = (*(each for each in self.results if each.way != EXTENDED), result)
        return Composition(results, EXTENDED, pool, self.plan, self)

    def drop(self, name: str) -> "Composition":
        """The composition without a network that `add` has added; networks added after it are dropped, too.

        Arguments:
            name: of the network.

        Raises:
            ArgumentError: it was not added.
        """
        smaller = self.smaller
        while smaller is not None and name in smaller.pool.names:
            smaller = smaller.smaller
        if smaller is None or name not in self.pool.names:
            added = self.pool.names[-1] if self.smaller is not None else None
            fix = f"drop({added!r})" if added is not None else "mb.compose with the other networks"
            raise ArgumentError("name", "was not added by `add`", name, fix)
        return smaller

    def save(self, folder: str | Path, way: str | None = None) -> None:
        """Write a model as `mb.save` does, and beside it `composition.json` with the table.

        Arguments:
            folder: of its own.
            way: whose model; None for the recommended one.

        Raises:
            ArgumentError: no such way, or a folder where something else lies.
        """
        result = self.result(way)
        assert result.model is not None
        save(result.model, folder, data={"composition": {"way": result.way, "networks": list(self.pool.names)}})
        write_json(Path(folder) / "composition.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All figures, as they go into JSON."""
        return facts_of(self)

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)
