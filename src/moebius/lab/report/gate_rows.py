"""The rows of a run as diagnostics read them: labels, predictions, data sets and the weights of every gate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Rows:
    """Images of one split of one run.

    Arguments:
        split: "train" or "test".
        labels: true classes, as indices into `class_names`.
        predictions: classes that the whole model predicts.
        domains: data set of each image, as an index into `domain_names`.
        class_names: names of the classes.
        domain_names: names of the data sets.
    """

    split: str
    labels: Int[np.ndarray, " T"]
    predictions: Int[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]


@dataclass(frozen=True)
class GateRows(Rows):
    """The images that one gate has weighed.

    Arguments:
        gate: its name, as in `gate_names`.
        weights: the gate's weights, all finite.
    """

    gate: str
    weights: Float[np.ndarray, "T E"]


@dataclass(frozen=True)
class SplitRows(Rows):
    """All images of the split, with the weights of every gate.

    Arguments:
        gates: name of each gate → its weights; NaN in the rows that a nested gate never received.
    """

    gates: Mapping[str, Float[np.ndarray, "T _"]]

    def by_gate(self) -> Iterator[GateRows]:
        """The rows that each gate has weighed; gates that received no row are left out."""
        for gate, weights in self.gates.items():
            weighed = np.isfinite(weights).all(1)
            if weighed.any():
                columns = (self.labels[weighed], self.predictions[weighed], self.domains[weighed])
                names = (self.class_names, self.domain_names)
                yield GateRows(self.split, *columns, *names, gate, weights[weighed])
