"""A run's routing.parquet: one line per image."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from moebius.kit.errors import StudyError
from moebius.lab.diagnostics._arrays import ROUNDING, shares
from moebius.lab.diagnostics.activation import activation
from moebius.lab.diagnostics.collapse import collapse
from moebius.lab.diagnostics.confusion import confusion
from moebius.lab.diagnostics.entropy import entropy
from moebius.lab.diagnostics.entropy_histogram import entropy_histogram
from moebius.lab.diagnostics.expert_confusion import expert_confusion
from moebius.lab.diagnostics.load import load
from moebius.lab.diagnostics.weight_histogram import weight_histogram
from moebius.lab.report.flow import ROOT, flow
from moebius.lab.report.frames import Frame, concatenate

_COLUMN = re.compile(r"gate(?:\[(?P<path>.*)\])?_(?P<expert>\d+)")


@dataclass(frozen=True)
class Rows:
    """The images of one split of one run.

    Arguments:
        labels: true classes.
        predictions: predicted classes.
        domains: data set of each image.
        gates: weights of each gate by module path; the root's is called `root`. NaN where a nested gate saw no image.
    """

    labels: Int[np.ndarray, " T"]
    predictions: Int[np.ndarray, " T"]
    domains: Int[np.ndarray, " T"]
    gates: dict[str, Float[np.ndarray, "T E"]]


def read_rows(path: Path) -> dict[str, Rows]:
    """The rows of a routing.parquet by split.

    Raises:
        StudyError: the file cannot be read or lacks a column.
    """
    try:
        table = pq.read_table(path)
        split = np.asarray(table["split"].cast(pa.string()).to_numpy(zero_copy_only=False))
        whole = {name: table[name].to_numpy().astype(np.int64) for name in ("label", "prediction", "domain")}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StudyError(
            f"{path}: cannot be read ({error})", "remove the run's folder and run the study again"
        ) from None
    columns: dict[str, dict[int, str]] = {}
    for name in table.column_names:
        if match := _COLUMN.fullmatch(name):
            columns.setdefault(match["path"] or ROOT, {})[int(match["expert"])] = name
    gates = {
        gate: np.stack([table[names[expert]].to_numpy() for expert in sorted(names)], 1)
        for gate, names in columns.items()
    }
    found = {}
    for name in ("train", "test"):
        chosen = np.flatnonzero(split == name)
        if chosen.size:
            found[name] = Rows(
                *(whole[column][chosen] for column in ("label", "prediction", "domain")),
                gates={gate: weights[chosen] for gate, weights in gates.items()},
            )
    return found


def frames_of(
    rows: Rows, classes: tuple[str, ...], domains: tuple[str, ...], per_expert: bool = True
) -> dict[str, Frame]:
    """Every diagnostic of one split's rows, by table; those of a gate have a column `gate`.

    Arguments:
        rows: the images.
        classes: names of the classes.
        domains: names of the data sets.
        per_expert: also the confusion of each expert's rows, and how rows flow through nested gates.
    """
    parts: dict[str, list[Frame]] = {}
    for gate, whole in rows.gates.items():
        seen = np.isfinite(whole).all(1)
        if not seen.any():
            continue
        weights, domain, label = whole[seen], rows.domains[seen], rows.labels[seen]
        made = {
            "weight_histogram": weight_histogram(weights, domain, domains),
            "entropy_histogram": entropy_histogram(weights, domain, domains),
            "load": load(weights),
            "entropy": entropy(weights).assign(
                largest_weight=float(np.median(_largest(weights))), experts=weights.shape[1]
            ),
            "collapse": _collapse(weights, domain, domains),
            "activation": concatenate(
                [
                    activation(weights, domain, domains).assign(by="domain"),
                    activation(weights, label, classes).assign(by="class"),
                ]
            ),
        }
        if per_expert:
            made["expert_confusion"] = expert_confusion(weights, label, rows.predictions[seen], classes)
        for name, frame in made.items():
            frame.insert(0, "gate", gate)
            parts.setdefault(name, []).append(frame)
    frames = {name: concatenate(frames) for name, frames in parts.items()}
    if per_expert and set(rows.gates) > {ROOT}:
        frames["flow"] = flow(rows.gates, rows.labels, rows.predictions, classes)
    return frames | {"confusion": confusion(rows.labels, rows.predictions, classes)}


def _largest(weights: Float[np.ndarray, "T E"]) -> Float[np.ndarray, " T"]:
    # Where weights are activations only their proportions say whether one expert outweighs the others.
    inside = weights.min() >= -ROUNDING and weights.max() <= 1 + ROUNDING
    return (weights if inside else shares(weights)).max(1)


def _collapse(weights: Float[np.ndarray, "T E"], domain: Int[np.ndarray, " T"], domains: tuple[str, ...]) -> Frame:
    frame = collapse(weights, domain, domains)
    if weights.min() >= 0:
        return frame
    # A negative weight is used as much as a positive one: only what is near 0 both ways is ignored.
    return frame.assign(ignored=collapse(np.abs(weights), domain, domains)["ignored"])
