"""A map of rows: their scores at a gate in two dimensions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from moebius.lab.explorer.row_table import GateColumns

# Smaller probabilities are as this one: that one expert is a million times less probable tells nothing more.
LEAST = 1e-6
# Distance of points that coincide, in units of the map; and the margin that their disk fits into.
SPREAD = 0.012
MARGIN = 0.07


@dataclass(frozen=True)
class Projection:
    """Positions of rows on a map.

    Arguments:
        points: 0 … 1 in both axes.
        places: the row of the table that each point is.
        titles: of the two axes.
    """

    points: Float[np.ndarray, "N 2"]
    places: Int[np.ndarray, " N"]
    titles: tuple[str, str]


def project_rows(gate: GateColumns, losses: Float[np.ndarray, " T"]) -> Projection:
    """The first two principal components of the gate's scores, of probabilities their centred logarithms.

    Where the scores vary in one direction alone, as those of two experts do, the second axis is the rank of a row by
    its loss.

    Arguments:
        gate: of a table; rows that did not reach it are left out.
        losses: of the rows; NaN where not known.
    """
    places = np.flatnonzero(np.isfinite(gate.scores).all(1))
    scores = gate.scores[places].astype(np.float64)
    values = scores
    if gate.is_distribution:
        logarithms = np.log(np.maximum(scores, LEAST))
        values = logarithms - logarithms.mean(1, keepdims=True)
    centred = values - values.mean(0) if len(values) else values
    if len(values) < 2:
        return Projection(np.full((len(values), 2), 0.5), places, ("", ""))
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: its largest entry is positive.
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(1)])[:, None]
    shares = sizes**2 / max(float((sizes**2).sum()), 1e-300)
    axes = centred @ directions[:2].T
    titles = [f"component {number + 1} ({share:.0%} of the variance)" for number, share in enumerate(shares[:2])]
    if len(shares) < 2 or shares[1] < 0.005:
        order = np.argsort(np.argsort(np.nan_to_num(losses[places], nan=np.inf), kind="stable"), kind="stable")
        axes = np.stack([axes[:, 0], order], 1)
        titles = [titles[0], "rank by loss"]
    low, high = axes.min(0), axes.max(0)
    points = (axes - low) / np.where(high > low, high - low, 1)
    points[:, high <= low] = 0.5
    return Projection(MARGIN + (1 - 2 * MARGIN) * points + _offsets(points), places, (titles[0], titles[1]))


def _offsets(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Points that coincide are laid out as the seeds of a sunflower; of others the offset is 0."""
    _, cells, counts = np.unique(points.round(3), axis=0, return_inverse=True, return_counts=True)
    cells = cells.reshape(-1)
    order = np.argsort(cells, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks = np.empty(len(points))
    ranks[order] = np.arange(len(points)) - starts[cells[order]]
    radius = np.minimum(SPREAD, MARGIN / np.sqrt(counts[cells])) * np.sqrt(ranks)
    angle = ranks * np.pi * (3 - np.sqrt(5))
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
