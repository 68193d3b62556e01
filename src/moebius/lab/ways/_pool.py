"""What a way is fitted to: frozen networks, and their outputs for rows that they were not trained on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moebius.combine.components import Components
from moebius.combine.label_mixture import LabelMixture
from moebius.combine.log_mixture import LogMixture
from moebius.combine.weighted_sum import WeightedSum
from moebius.core.output_cache import OutputCache
from moebius.core.routing import Router
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Split
from moebius.lab.training.call_model import call_model
from moebius.lab.training.evaluation import ROWS_AT_ONCE
from moebius.layers.mixture import Mixture
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification
from moebius.tasks.gaussian import Gaussian
from moebius.tasks.multi_label import MultiLabel

# The share of the rows that choose among several forms of a way.
HELD_OUT = 0.25


@dataclass(frozen=True, eq=False)
class Pool:
    """Frozen networks with their outputs for the rows that ways are fitted to.

    Arguments:
        names: of the networks.
        experts: the networks, each a frozen `Adapter`, which ways share and never change.
        task: what is learned, as a network's outputs are read.
        rows: the networks were not trained on them.
        outputs: of every network for these rows.
        knows: which classes each network knows; true throughout for a task without classes.
        seed: of everything random.
        gate: makes a gate for a number of experts; None for one that fits the rows.
        cardinalities: of the category columns, which stand last in a row of a table.
        training: rows for controls, which are trained from the start; None where none are to be trained.
        shared: what one way leaves for another, such as a gate that both use.
    """

    names: tuple[str, ...]
    experts: tuple[nn.Module, ...]
    task: Task
    rows: Split
    outputs: Float[Tensor, "T E ..."]
    knows: Bool[Tensor, "E _"]
    seed: int = 0
    gate: Callable[[int], nn.Module] | None = None
    cardinalities: tuple[int, ...] = ()
    training: Split | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def count(self) -> int:
        """E, the number of networks."""
        return len(self.experts)

    @property
    def classifies(self) -> bool:
        """Whether each row has one class."""
        return isinstance(self.task, Classification)

    @property
    def gives_probabilities(self) -> bool:
        """Whether outputs are logits of classes or labels."""
        return isinstance(self.task, Classification | MultiLabel)

    @property
    def generalists(self) -> list[int]:
        """Numbers of the networks that know all classes."""
        return [number for number in range(self.count) if bool(self.knows[number].all())]

    @property
    def specialists(self) -> list[int]:
        """Numbers of the networks that know some classes alone."""
        return [number for number in range(self.count) if not bool(self.knows[number].all())]

    def combine(self) -> Callable[..., Tensor]:
        """What mixes such outputs by weights: probabilities, densities, or quantities."""
        if self.classifies:
            return LogMixture()
        if isinstance(self.task, MultiLabel):
            return LabelMixture()
        return Components() if isinstance(self.task, Gaussian) else WeightedSum()

    def mixture(
        self,
        gate: nn.Module,
        router: Router | None = None,
        combine: Callable[..., Tensor] | None = None,
        experts: Iterable[nn.Module] | None = None,
    ) -> Mixture:
        """A mixture of the networks, in evaluation mode.

        Arguments:
            gate, router: of the mixture.
            combine: unless given, that of the task.
            experts: in the place of all networks.
        """
        members = self.experts if experts is None else experts
        return Mixture(gate, members, router, combine or self.combine()).eval()

    def take(self, index: Int[Tensor, " rows"]) -> "Pool":
        """The pool with some of its rows, of which nothing is shared."""
        return replace(self, rows=self.rows.take(index), outputs=self.outputs[index], shared={})

    def only(self, numbers: Sequence[int]) -> "Pool":
        """The pool with some of its networks, of which nothing is shared."""
        numbers = list(numbers)
        return replace(
            self,
            names=tuple(self.names[number] for number in numbers),
            experts=tuple(self.experts[number] for number in numbers),
            outputs=self.outputs[:, numbers],
            knows=self.knows[numbers],
            shared={},
        )

    def outputs_of(self, model: nn.Module) -> Float[Tensor, "T ..."]:
        """What a module that is made of the networks gives for the rows; the networks' outputs are looked up."""
        cache = OutputCache({expert: self.outputs[:, number] for number, expert in enumerate(self.experts)})
        with torch.no_grad():
            pieces = []
            for batch in ordered_batches(self.rows, ROWS_AT_ONCE):
                with cache.serve_rows(batch.rows):
                    pieces.append(call_model(model, batch.x, batch.domains))
        return torch.cat(pieces)

    def with_outputs(self, members: Sequence[nn.Module]) -> "Pool":
        """The pool with other members in the networks' places, such as mixtures of them."""
        outputs = torch.stack([self.outputs_of(member) for member in members], 1)
        names = tuple(f"member {number}" for number in range(len(members)))
        knows = torch.ones(len(members), self.knows.shape[1], dtype=torch.bool)
        return replace(self, names=names, experts=tuple(members), outputs=outputs, knows=knows, shared={})

    def halves(self) -> tuple["Pool", "Pool"]:
        """Rows to fit, and rows that choose among forms of a way."""
        order = torch.from_numpy(np.random.default_rng([self.seed, 4]).permutation(len(self)))
        order = order.to(self.outputs.device)
        count = max(round(HELD_OUT * len(self)), 1)
        return self.take(order[count:]), self.take(order[:count])

    def scores(self) -> Float[Tensor, " E"]:
        """The mean score of each network on the rows."""
        values = [self.task.row_scores(output, self.rows.labels) for output in self.outputs.unbind(1)]
        return torch.stack([value.double().mean() for value in values])

    def losses(self) -> Float[Tensor, " E"]:
        """The mean loss of each network on the rows."""
        values = [self.task.row_losses(output, self.rows.labels) for output in self.outputs.unbind(1)]
        return torch.stack([value.double().mean() for value in values])

    def best(self, numbers: Sequence[int] | None = None) -> int:
        """The network with the highest score on the rows; of equals the one with the least loss."""
        scores, losses = self.scores().tolist(), self.losses().tolist()
        return max(range(self.count) if numbers is None else numbers, key=lambda each: (scores[each], -losses[each]))
