"""A few test rows for each expert of a run's first gate, as a reader sees them: pixels, or the cells of a table."""

import json
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from moebius.lab.data.nested import tensors_of
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.tables.columns import NumberColumn
from moebius.lab.report.gate_names import outer_gates
from moebius.lab.report.picked_rows import KINDS, pick_rows, win_experts
from moebius.lab.training.evaluation import Evaluation

# Bytes of all pixels together; a picture's largest side; experts that are kept; pictures, and lines, of a kind.
BYTES, SIDE, EXPERTS, PICTURES, LINES = 180_000, 32, 16, 5, 3
# As many rows of a kind are kept at least, where that leaves two experts.
LEAST_ROWS = 3
# Columns of a table that are kept, and numbers of a sequence.
COLUMNS, SEQUENCE = 12, 16


def example_rows(data: Dataset, test: Evaluation) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and texts for the file `examples.safetensors`.

    Arguments:
        data: the rows.
        test: of the test rows.

    Returns:
        `rows` (positions in the test rows), `experts`, `kinds` (places in `KINDS`), and the rows themselves: `images`,
        or a text `cells`, JSON of `columns` and `rows`. None where no gate prefers an expert, or where nothing of a row
        can be shown.
    """
    gate = next(iter(outer_gates(list(test.gates))), None)
    if gate is None or test.gates[gate].shape[1] < 2:
        return None
    weights = test.gates[gate].float().numpy()
    weights = np.where(np.isfinite(weights).all(1, keepdims=True), weights, 0.0)
    bytes_of_row = _image_bytes(data.test)
    if not bytes_of_row and not _has_cells(data):
        return None
    wins_E = np.bincount(win_experts(weights) + 1, minlength=weights.shape[1] + 1)[1:]
    most = min(EXPERTS, max(2, BYTES // (len(KINDS) * LEAST_ROWS * max(bytes_of_row, 1))))
    experts = sorted(expert for expert in np.argsort(-wins_E, kind="stable")[:most].tolist() if wins_E[expert])
    if not experts:
        return None
    count = int(
        np.clip(BYTES // (len(KINDS) * len(experts) * max(bytes_of_row, 1)), 1, PICTURES if bytes_of_row else LINES)
    )
    picked = pick_rows(weights, test.scores.float().numpy(), test.losses.float().numpy(), experts, count)
    rows = torch.from_numpy(np.concatenate([each.rows for each in picked]).astype(np.int64))
    tensors = {
        "rows": rows.int(),
        "experts": torch.tensor([each.expert for each in picked for _ in each.rows], dtype=torch.int32),
        "kinds": torch.tensor([KINDS.index(each.kind) for each in picked for _ in each.rows], dtype=torch.uint8),
    }
    if bytes_of_row:
        return {**tensors, "images": _pixels(data.test, rows)}, {}
    return tensors, {"cells": json.dumps(_cells(data, rows))}


def _images(split: Split) -> Tensor | None:
    """The pictures among the inputs: (T, channels, height, width) of one or three channels, or (T, height, width)."""
    for tensor in tensors_of(split.images):
        if tensor.ndim == 4 and tensor.shape[1] in (1, 3):
            return tensor
        if tensor.ndim == 3 and tensor.is_floating_point() and min(tensor.shape[1:]) > 3:
            return tensor.unsqueeze(1)
    return None


def _image_bytes(split: Split) -> int:
    """Bytes of a picture in the file; 0 for rows that are none."""
    images = _images(split)
    return 0 if images is None else images.shape[1] * _size(images)[0] * _size(images)[1]


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[2:]
    share = min(1.0, SIDE / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _pixels(split: Split, rows: Tensor) -> UInt8[Tensor, "N channels height width"]:
    """The pictures of these rows, 0 … 255: other numbers from the smallest to the largest of these rows."""
    images = _images(split)
    assert images is not None
    pictures = images[rows.to(images.device)].cpu()
    is_pixels = pictures.dtype == torch.uint8
    pictures = pictures.float()
    if not is_pixels:
        low, high = pictures.min(), pictures.max()
        pictures = (pictures - low) * (255 / (high - low).clamp(min=1e-12))
    if _size(images) != tuple(images.shape[2:]):
        pictures = F.interpolate(pictures, size=_size(images), mode="area")
    return pictures.round().clamp(0, 255).to(torch.uint8)


def _has_cells(data: Dataset) -> bool:
    inputs = data.test.images
    if not isinstance(inputs, Tensor) or inputs.ndim != 2:
        return False
    return data.columns is not None or not inputs.is_floating_point() or inputs.shape[1] <= COLUMNS


def _cells(data: Dataset, rows: Tensor) -> dict[str, Any]:
    """Names of columns, and the texts of these rows: of a table in its own units, with the names of categories."""
    values = data.test.images[rows.to(data.test.device)].cpu()
    if data.columns is None:
        if values.is_floating_point():
            names = [f"x{place}" for place in range(values.shape[1])]
            return {"columns": names, "rows": [[f"{value:.4g}" for value in row] for row in values.tolist()]}
        texts = [" ".join(map(str, row[:SEQUENCE])) + " …" * (len(row) > SEQUENCE) for row in values.tolist()]
        return {"columns": ["sequence"], "rows": [[text] for text in texts]}
    table, texts = data.columns, []
    features = {name: place for place, name in enumerate(table.features)}
    for row in values.double().tolist():
        cells = []
        for column in table.numbers:
            is_missing = column.has_missing and row[features[f"{column.name} is missing"]] == 1
            cells.append("missing" if is_missing else _decode(row[features[column.name]], column))
        for column in table.categories:
            code = int(row[features[column.name]])
            cells.append(column.categories[code - 1] if code else "missing or new")
        texts.append(cells[:COLUMNS])
    names = [column.name for column in (*table.numbers, *table.categories)]
    return {"columns": names[:COLUMNS], "rows": texts}


def _decode(value: float, column: NumberColumn) -> str:
    """A number in its own unit; float32 leaves a rest where it was 0."""
    number = value * column.scale + column.mean
    return "0" if abs(number) < 1e-6 * (abs(column.mean) + column.scale) else f"{number:.4g}"
