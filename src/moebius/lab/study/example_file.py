"""The file `examples.safetensors` of a run: a few test rows, for the pictures of the report."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from moebius.core.recording import record
from moebius.kit.files import atomic_path
from moebius.kit.modes import evaluation_mode
from moebius.kit.seals import SEAL
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.split import Dataset
from moebius.lab.study.example_rows import example_rows
from moebius.lab.training.call_model import call_model
from moebius.lab.training.outcome import Trained

# Rows of the file.
EXAMPLES = 6


def write_examples(path: Path, data: Dataset, trained: Trained) -> None:
    """Write a few test rows.

    Where pixels have classes, these are the first rows: `images`, `classes`, `predictions`, and the expert with the
    largest weight at each pixel, `experts`, which is left out for a model that weighs no pixels. Of other data they are
    the rows that show what each expert of the first gate does, as `example_rows` picks them; nothing is written where
    there are none.

    Arguments:
        path: of the file.
        data: the rows.
        trained: the outcome.
    """
    rows = data.test.take(slice(0, EXAMPLES))
    labels = rows.labels
    if not isinstance(labels, Tensor) or labels.ndim != 3 or rows.images.dtype != torch.uint8:
        example = example_rows(data, trained.test)
        if example is not None:
            _save(path, *example)
        return
    device = next(trained.model.parameters()).device
    with evaluation_mode(trained.model), torch.inference_mode(), record(trained.model) as log:
        batch = next(ordered_batches(rows, EXAMPLES, device))
        call_model(trained.model, batch.x, batch.domains)
    tensors = {
        "images": rows.images.cpu(),
        "classes": labels.cpu(),
        "predictions": trained.test.predictions[: len(rows)].cpu(),
    }
    for calls in log.values():
        weights = calls[0].weights
        if calls[0].rows is None and len(weights) == labels.numel() and weights.shape[1] > 1:
            tensors["experts"] = weights.argmax(1).view(labels.shape).cpu()
            break
    _save(path, tensors, {})


def _save(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    # One entry: safetensors writes several in any order, and files of equal runs have equal bits.
    texts = {name: json.dumps({"digest": SEAL, **json.loads(text)}) for name, text in texts.items()}
    with atomic_path(path, seal=True) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, texts or {"digest": SEAL})
