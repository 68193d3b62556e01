"""`RoutedRows`: rows as one gate routed them, and what is known of them; every measure reads this."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from moebius.core.routing import Routing
from moebius.lab.diagnostics._arrays import check_finite, check_indices

# The group of a row that has none: a token without a class.
NO_GROUP = -1
# Rows that a measure reads at once: at 64 experts a table of float64 has 16 MB.
PIECE = 32_768


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
        refused: which experts' capacity refused the row.
        ablated_losses, ablated_scores: losses and scores of the mixture without each expert, its weights shared out
            among the others (`without_expert`).
        outputs: each expert's output.

    Measures share what they derive from a batch: `top`, `shares` and the other cached properties are computed once.
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
    refused: Bool[Tensor, "T E"] | None = None
    ablated_losses: Float[Tensor, "T E"] | None = None
    ablated_scores: Shaped[Tensor, "T E"] | None = None
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
    def from_routing(cls, routing: Routing, k: int = 0, **columns: Any) -> "RoutedRows":
        """The rows of a recorded routing.

        Arguments:
            routing: of `mb.record` or `mb.watch`.
            k: most experts that the router selects for a row; as many as the busiest row has unless given.
            columns: other fields.

        Example:
            >>> import moebius as mb
            >>> RoutedRows.from_routing(mb.routers.TopK(1)(torch.eye(3))).k
            1
        """
        weights, probs = (values.detach().float().cpu() for values in (routing.weights, routing.probs))
        if routing.selection is None:
            kept, dropped, refused = weights != 0, None, None
        else:
            kept, refused = (torch.zeros_like(weights, dtype=torch.bool) for _ in range(2))
            selection = routing.selection
            row_A, expert_A, kept_A = (
                values.cpu() for values in (selection.row_A, selection.expert_A, selection.kept_A)
            )
            kept[row_A[kept_A], expert_A[kept_A]] = True
            if "dropped" in routing.aux:
                refused[row_A[~kept_A], expert_A[~kept_A]] = True
            dropped = refused.sum(1)
        k = k or int(kept.sum(1).max()) if len(weights) else k
        outputs = columns.pop("outputs", None if routing.outputs is None else routing.outputs.detach().float().cpu())
        return cls(weights, probs, kept, k, dropped, refused=refused, outputs=outputs, **columns)

    def take(self, rows: Tensor | slice) -> "RoutedRows":
        """The rows of these numbers, of this range, or those where a mask is true."""
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

    def pieces(self) -> Iterator["RoutedRows"]:
        """The rows, none of them padding, in turn and few enough for tables of float64."""
        rows = self.unpadded
        if len(rows) <= PIECE:
            yield rows
        else:
            yield from (rows.take(slice(start, start + PIECE)) for start in range(0, len(rows), PIECE))

    @property
    def unpadded(self) -> "RoutedRows":
        """These rows without padding."""
        return self if self._unpadded is None else self._unpadded

    @cached_property
    def _unpadded(self) -> "RoutedRows | None":
        # None for the rows themselves: an object that keeps itself outlives its batch.
        return None if self.real is None or bool(self.real.all()) else self.take(self.real)

    def check(self) -> None:
        """Look at weights and groups, once for all measures.

        Raises:
            ArgumentError: a row has NaN or infinite weights; a group has no name.
        """
        self._checked  # noqa: B018

    @cached_property
    def _checked(self) -> bool:
        # A sum is finite unless a weight is not, or many are huge; only then is each weight looked at.
        if not self.weights.sum().isfinite():
            check_finite(self.weights.numpy())
        for by, groups in self.groups.items():
            if by in self.names or int(groups.min()) < NO_GROUP:
                names = self.names.get(by, ("",) * (int(groups.max()) + 1))
                check_indices(groups[groups != NO_GROUP].numpy(), names, "groups")
        return True

    @cached_property
    def top(self) -> Int[Tensor, " T"]:
        """The expert with each row's largest weight: the one that would run alone.

        Of several that tie it is the first, as routers choose. Where rows are counted, ties divide them: see `wins`.
        """
        return self.weights.argmax(1)

    @cached_property
    def shares(self) -> Float[Tensor, "T E"]:
        """Each row's weights as a distribution, float64: |w_e| / Σ_j |w_j|; a row of zeros stays zero."""
        return _shares(self.weights)

    @cached_property
    def prob_shares(self) -> Float[Tensor, "T E"]:
        """`probs` in the same way."""
        return self.shares if self.probs is self.weights else _shares(self.probs)

    @cached_property
    def wins(self) -> Float[Tensor, " E"]:
        """How many rows each expert wins: those whose largest weight it has; n experts that tie get 1/n of the row."""
        largest_T1 = self.weights.amax(1, keepdim=True)
        ties_TE = self.weights == largest_T1
        count_T = ties_TE.sum(1)
        tied_T = count_T > 1
        wins_E = torch.bincount(self.top[~tied_T], minlength=self.experts).double()
        if tied_T.any():
            wins_E += (ties_TE[tied_T] / count_T[tied_T].double().unsqueeze(1)).sum(0)
        return wins_E

    @cached_property
    def weight_sums(self) -> Float[Tensor, " E"]:
        """Sum of each expert's weights."""
        return self.weights.sum(0, dtype=torch.float64)

    @cached_property
    def doubled_weights(self) -> Float[Tensor, "T E"]:
        """The weights in float64."""
        return self.weights.double()

    @cached_property
    def has_negative(self) -> bool:
        """Whether some weight is below 0."""
        return bool((self.weights.amin() < 0).item())

    @cached_property
    def entropies(self) -> Float[Tensor, " T"]:
        """Entropy of each row's shares in nats."""
        return torch.special.entr(self.shares).sum(1)

    @cached_property
    def prob_entropies(self) -> Float[Tensor, " T"]:
        """Entropy in nats of each row of `prob_shares`."""
        return self.entropies if self.probs is self.weights else torch.special.entr(self.prob_shares).sum(1)

    @cached_property
    def counts(self) -> Int[Tensor, " E"]:
        """How many rows each expert runs on."""
        return self.kept.sum(0)

    def group_count(self, by: str) -> int:
        """G, the number of groups: of those with a name, or the largest index and one."""
        return len(self.names[by]) if by in self.names else int(self.groups[by].max()) + 1

    def sum_by_group(self, by: str, values: Float[Tensor, "T N"]) -> Float[Tensor, "G N"]:
        """Sums of float64 values over the rows of each group; rows without a group are left out."""
        sums = values.new_zeros(self.group_count(by) + 1, values.shape[1])
        return sums.index_add_(0, self.groups[by] + 1, values)[1:]

    def group_sizes(self, by: str) -> Int[Tensor, " G"]:
        """Rows of each group."""
        return torch.bincount(self.groups[by] + 1, minlength=self.group_count(by) + 1)[1:]

    def crosstab(self, by: str) -> Int[Tensor, "G E"]:
        """Rows of each group whose largest weight is each expert's."""
        count = self.group_count(by) + 1
        cell_T = (self.groups[by] + 1) * self.experts + self.top
        return torch.bincount(cell_T, minlength=count * self.experts).view(count, self.experts)[1:]

    def sum_by_top(self, values: Float[Tensor, "T N"]) -> Float[Tensor, "E N"]:
        """Sums of float64 values over the rows whose largest weight is each expert's."""
        return values.new_zeros(self.experts, values.shape[1]).index_add_(0, self.top, values)

    def _tensors(self) -> dict[str, Tensor]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _shares(weights: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    sizes_TE = weights.abs().double()
    totals_T1 = sizes_TE.sum(1, keepdim=True)
    return sizes_TE / torch.where(totals_T1 > 0, totals_T1, 1)
