"""How rows flow through nested gates: from the root to the leaf experts."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from moebius.lab.diagnostics._arrays import shares
from moebius.lab.report.frames import Frame, make_frame

ROOT = "root"
COLUMNS = ("path", "parent", "class", "of", "share", "rows", "right")
Gates = Mapping[str, Float[np.ndarray, "T E"]]


def flow(
    gates: Gates, labels: Int[np.ndarray, " T"], predictions: Int[np.ndarray, " T"], classes: Sequence[str]
) -> Frame:
    """How much of each class reaches each expert of a tree of mixtures.

    reach(root) = 1;  reach(child e) = reach(parent) · |w_e| / Σ_j |w_j|, 0 for rows that the parent's gate never saw

    Arguments:
        gates: weights by module path, NaN in rows that a gate never saw; the outermost is called `root`.
        labels: true classes.
        predictions: predicted classes.
        classes: names of the classes.

    Returns:
        Columns path (of the expert), parent (its mixture's gate: root or a path), class, of (rows of the class), share
        (mean reach over them), rows (that go to the expert when every gate follows its largest weight), right (those of
        them that the whole model predicts right). Parents stand before their children.

    Example:
        >>> gates = {"root": np.array([[1.0, 0.0]]), "experts.0": np.array([[0.25, 0.75]])}
        >>> frame = flow(gates, np.array([0]), np.array([0]), ["cat"])
        >>> print(frame[["path", "share", "rows"]].to_string(index=False))
                       path  share  rows
                  experts.0   1.00     1
        experts.0.experts.0   0.25     0
        experts.0.experts.1   0.75     1
                  experts.1   0.00     0

    Reference: ours.
    """
    count = len(classes)
    of_C = np.bincount(labels, minlength=count)
    lines, right_T = [], np.equal(labels, predictions)
    whole = np.ones(len(labels)), np.ones(len(labels), dtype=bool)
    for path, parent, reach_T, won_T in _nodes(gates, ROOT, *whole):
        reach_C = np.bincount(labels, reach_T, minlength=count)
        won_C = np.bincount(labels[won_T], minlength=count)
        right_C = np.bincount(labels[won_T & right_T], minlength=count)
        lines += [
            (path, parent, name, int(of_C[c]), float(reach_C[c] / of_C[c]), int(won_C[c]), int(right_C[c]))
            for c, name in enumerate(classes)
            if of_C[c]
        ]
    return make_frame(lines, COLUMNS)


def gate_inside(path: str, gates: Sequence[str]) -> str | None:
    """The outermost gate in the expert at a path; None where the expert is a leaf."""
    inside = [gate for gate in gates if gate == path or gate.startswith(f"{path}.")]
    return min(inside, key=len, default=None)


def _nodes(
    gates: Gates, gate: str, reach_T: Float[np.ndarray, " T"], won_T: Bool[np.ndarray, " T"]
) -> Iterator[tuple[str, str, Float[np.ndarray, " T"], Bool[np.ndarray, " T"]]]:
    weights_TE = gates[gate]
    filled_TE = np.where(np.isfinite(weights_TE), weights_TE, 0.0)
    share_TE = shares(filled_TE)
    top_T = np.where(np.isfinite(weights_TE).all(1), filled_TE.argmax(1), -1)
    for expert in range(weights_TE.shape[1]):
        path = f"experts.{expert}" if gate == ROOT else f"{gate}.experts.{expert}"
        reached_T, wins_T = reach_T * share_TE[:, expert], won_T & (top_T == expert)
        yield path, gate, reached_T, wins_T
        inner = gate_inside(path, [name for name in gates if name != ROOT])
        if inner is not None:
            yield from _nodes(gates, inner, reached_T, wins_T)
