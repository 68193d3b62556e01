"""`RoutedRows`: rows as one gate routed them, and what is known of them; every measure reads this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from moebius.core.routing import Routing

# The group of a row that has none: a token without a class.
NO_GROUP = -1


@dataclass(frozen=True)
class RoutedRows:
    """A batch of rows of one gate, on the CPU.

    Only `weights` is needed; a measure names the other fields that it reads in `requires`.

    Arguments:
        weights: the factors of the experts' outputs; exactly 0 where an expert was not selected.
        probs: the gate's distribution over the experts, before any selection; the weights unless given.
        kept: which experts ran for which row; where the weights are not 0 unless given.
        k: most experts that the router selects for a row; E unless given.
        dropped: how many of a row's assignments the capacity refused.
        real: False for padding; None where no row is.
        groups: what rows belong to, by name ("domain", "class", "split", "position"): an index of each row, or −1.
        names: the names of these groups; their numbers where there are none.
        losses: the task's loss of the mixture for each row.
        scores: its score.
        confidence: the probability of its prediction.
        predictions: what it predicts.
        expert_losses, expert_scores, expert_confidence, expert_predictions: the same of each expert by itself, whether
            the row was sent to it or not.
        outputs: each expert's output.
    """

    weights: Float[Tensor, "T E"]
    probs: Float[Tensor, "T E"] = None  # type: ignore[assignment]
    kept: Bool[Tensor, "T E"] = None  # type: ignore[assignment]
    k: int = 0
    dropped: Int[Tensor, " T"] | None = None
    real: Bool[Tensor, " T"] | None = None
    groups: Mapping[str, Int[Tensor, " T"]] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    losses: Float[Tensor, " T"] | None = None
    scores: Shaped[Tensor, " T"] | None = None
    confidence: Float[Tensor, " T"] | None = None
    predictions: Shaped[Tensor, " T"] | None = None
    expert_losses: Float[Tensor, "T E"] | None = None
    expert_scores: Shaped[Tensor, "T E"] | None = None
    expert_confidence: Float[Tensor, "T E"] | None = None
    expert_predictions: Shaped[Tensor, "T E"] | None = None
    outputs: Float[Tensor, "T E ..."] | None = None

    def __post_init__(self) -> None:
        if self.probs is None:
            object.__setattr__(self, "probs", self.weights)
        if self.kept is None:
            object.__setattr__(self, "kept", self.weights != 0)
        if not self.k:
            object.__setattr__(self, "k", self.weights.shape[1])

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def experts(self) -> int:
        """E, the number of experts."""
        return self.weights.shape[1]

    @classmethod
    def from_routing(cls, routing: Routing, k: int = 0, **known: Any) -> "RoutedRows":
        """The rows of a recorded routing.

        Arguments:
            routing: of `mb.record` or `mb.watch`.
            k: most experts that the router selects for a row; as many as the busiest row has unless given.
            known: other fields.

        Example:
            >>> import moebius as mb
            >>> RoutedRows.from_routing(mb.routers.TopK(1)(torch.eye(3))).k
            1
        """
        weights, probs = (values.detach().float().cpu() for values in (routing.weights, routing.probs))
        if routing.selection is None:
            kept, dropped = weights != 0, None
        else:
            kept, dropped = torch.zeros_like(weights, dtype=torch.bool), torch.zeros(len(weights), dtype=torch.long)
            selection = routing.selection
            row_A, expert_A, kept_A = (
                values.cpu() for values in (selection.row_A, selection.expert_A, selection.kept_A)
            )
            kept[row_A[kept_A], expert_A[kept_A]] = True
            if "dropped" in routing.aux:
                dropped.index_add_(0, row_A, (~kept_A).long())
        k = k or int(kept.sum(1).max()) if len(weights) else k
        outputs = known.pop("outputs", None if routing.outputs is None else routing.outputs.detach().float().cpu())
        return cls(weights, probs, kept, k, dropped, outputs=outputs, **known)

    def take(self, rows: Tensor) -> "RoutedRows":
        """The rows of these numbers, or those where a mask is true."""
        return replace(
            self,
            groups={name: values[rows] for name, values in self.groups.items()},
            **{name: values[rows] for name, values in self._tensors().items()},
        )

    @staticmethod
    def join(batches: Sequence["RoutedRows"]) -> "RoutedRows":
        """The rows of several batches of one gate, in turn.

        Arguments:
            batches: one at least; all with the same fields.
        """
        first = batches[0]
        tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in first._tensors()}
        groups = {name: torch.cat([batch.groups[name] for batch in batches]) for name in first.groups}
        return replace(first, k=max(batch.k for batch in batches), groups=groups, **tensors)

    def _tensors(self) -> dict[str, Tensor]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
