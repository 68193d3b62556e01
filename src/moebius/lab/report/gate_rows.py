"""The rows of a run as diagnostics read them: labels, predictions, data sets and the weights of every gate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Shaped


# Rows are compared by identity: measures keep what they derive from them.
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one split of one run.

    Arguments:
        split: "train" or "test".
        labels: true classes, as indices into `class_names`; without classes the numbers to predict, NaN where a row has
            several targets or none of its own.
        predictions: classes, or numbers, that the whole model predicts.
        domains: data set of each row, as an index into `domain_names`.
        class_names: names of the classes; empty where rows have no class.
        domain_names: names of the data sets.
    """

    split: str
    labels: Shaped[np.ndarray, " T"]
    predictions: Shaped[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GateRows(Rows):
    """The rows that one gate has weighed.

    Arguments:
        gate: its name, as in `gate_names`.
        weights: the gate's weights, all finite.
        scores, losses, confidence: of the whole model for each row, and the probability of its prediction; None where
            the run did not write them down.
    """

    gate: str
    weights: Float[np.ndarray, "T E"]
    scores: Float[np.ndarray, " T"] | None = None
    losses: Float[np.ndarray, " T"] | None = None
    confidence: Float[np.ndarray, " T"] | None = None


@dataclass(frozen=True, eq=False)
class SplitRows(Rows):
    """All rows of the split, with the weights of every gate.

    Arguments:
        gates: name of each gate → its weights; NaN in the rows that a nested gate never received.
        scores: of the whole model for each row: whether it is predicted right, or another task's score.
        features: name → values, where a row is so few numbers that a run writes them down.
        alone: path of an expert → what it predicts by itself; of test rows with such features.
        losses, confidence: the loss of each row, and the probability of its prediction; None where the run did not
            write them down.
    """

    gates: Mapping[str, Float[np.ndarray, "T _"]]
    scores: Float[np.ndarray, " T"]
    features: Mapping[str, Float[np.ndarray, " T"]] = field(default_factory=dict)
    alone: Mapping[str, Float[np.ndarray, " T"]] = field(default_factory=dict)
    losses: Float[np.ndarray, " T"] | None = None
    confidence: Float[np.ndarray, " T"] | None = None

    def by_gate(self) -> Iterator[GateRows]:
        """The rows that each gate has weighed; gates that received no row are left out."""
        for gate, weights in self.gates.items():
            weighed = np.isfinite(weights).all(1)
            if weighed.any():
                columns = (self.labels[weighed], self.predictions[weighed], self.domains[weighed])
                names = (self.class_names, self.domain_names)
                outcome = (self.scores, self.losses, self.confidence)
                of_gate = (None if values is None else values[weighed] for values in outcome)
                yield GateRows(self.split, *columns, *names, gate, weights[weighed], *of_gate)
