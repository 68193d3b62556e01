"""The rows of a run as diagnostics read them: labels, predictions, data sets and the weights of every gate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# The outermost gate's name; nested gates are named by their module path.
ROOT = "root"


@dataclass(frozen=True)
class GateRows:
    """The images of one split of one run that one gate has weighed.

    Arguments:
        gate: "root", or the module path of a nested gate.
        split: "train" or "test".
        weights: the gate's weights, all finite.
        labels: true classes, as indices into `class_names`.
        predictions: classes that the whole model predicts.
        domains: data set of each image, as an index into `domain_names`.
        class_names: names of the classes.
        domain_names: names of the data sets.
    """

    gate: str
    split: str
    weights: Float[np.ndarray, "T E"]
    labels: Int[np.ndarray, " T"]
    predictions: Int[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]


@dataclass(frozen=True)
class SplitRows:
    """All images of one split of one run, with the weights of every gate.

    Arguments:
        split: "train" or "test".
        labels: true classes, as indices into `class_names`.
        predictions: classes that the whole model predicts.
        domains: data set of each image, as an index into `domain_names`.
        gates: weights by gate: "root", or the module path of a nested gate; NaN in the rows that a nested gate never
            received.
        class_names: names of the classes.
        domain_names: names of the data sets.
    """

    split: str
    labels: Int[np.ndarray, " T"]
    predictions: Int[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    gates: Mapping[str, Float[np.ndarray, "T _"]]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]

    def by_gate(self) -> Iterator[GateRows]:
        """The rows that each gate has weighed; gates that received no row are left out."""
        for gate, weights in self.gates.items():
            weighed = np.isfinite(weights).all(1)
            if weighed.any():
                yield GateRows(
                    gate,
                    self.split,
                    weights[weighed],
                    self.labels[weighed],
                    self.predictions[weighed],
                    self.domains[weighed],
                    self.class_names,
                    self.domain_names,
                )


def outermost_gate(path: str, gates: Sequence[str]) -> str | None:
    """The outermost gate inside the expert at a module path; None where that expert is a leaf.

    Example:
        >>> outermost_gate("experts.0", ["experts.0.1", "experts.0.1.experts.2"])
        'experts.0.1'
    """
    gates_inside = [gate for gate in gates if gate == path or gate.startswith(f"{path}.")]
    return min(gates_inside, key=len, default=None)
