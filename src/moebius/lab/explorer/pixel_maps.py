"""Rows with a class at each position, drawn as pictures of their classes."""

import numpy as np
from torch import Tensor

from moebius.lab.explorer.picture import class_map_bytes
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.tasks.tokens import Tokens

# Experts whose own pictures are drawn.
MOST_EXPERTS = 16


def pixel_maps(rows: ExplainedRows, row: int = 0) -> list[tuple[str, bytes]]:
    """Titles and PNG files: the label, the answer, the expert of each position, and what each expert says.

    Nothing for a task that has no class at each position of a plane.

    Arguments:
        rows: whose passes keep the outputs.
        row: the place of the one that is drawn.
    """
    if not isinstance(rows.task, Tokens) or not isinstance(rows.passes.output, Tensor):
        return []
    answer = _classes(rows.task, rows.passes.output, row)
    if answer.ndim != 2:
        return []
    maps = [("says", class_map_bytes(answer))]
    if isinstance(rows.passes.label, Tensor):
        maps.insert(0, ("truth", class_map_bytes(rows.passes.label[row].cpu().numpy())))
    for table in rows.passes.gates:
        calls = rows.passes.log.get(table.place.path, [])
        if table.place.count > 1 and table.positions == answer.size and len(calls) == 1:
            start = row * answer.size
            top = calls[0].weights[start : start + answer.size].argmax(1).cpu().numpy().reshape(answer.shape)
            maps.append((f"expert of each position at {table.place.name}", class_map_bytes(top)))
        if table.place.inside is None:
            for expert in range(min(table.place.count, MOST_EXPERTS) if table.place.count > 1 else 0):
                outcome = rows.passes.sent.get((table.place.name, expert))
                if outcome is not None and isinstance(outcome.output, Tensor):
                    maps.append((f"expert {expert} alone", class_map_bytes(_classes(rows.task, outcome.output, row))))
    return maps


def _classes(task: Tokens, output: Tensor, row: int) -> np.ndarray:
    return task.predict(output[row : row + 1].float())["predictions"].numpy()[0].astype(np.int64)
