"""Rows from outside of a study: a file with the tensors x and y."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from moebius.kit.errors import DataError

FIX = 'safetensors.torch.save_file({"x": x, "y": y}, "rows.safetensors")    # or the folder of a run'


def read_rows_file(path: Path) -> tuple[Tensor, Tensor]:
    """Inputs, (T, …), and targets, (T,) or another form of a task, of a safetensors file.

    Raises:
        DataError: the file cannot be read, or lacks a tensor.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}", FIX) from None
    if missing := {"x", "y"} - {*tensors}:
        raise DataError(f"{path}: holds no tensor {' and no tensor '.join(sorted(missing))}", FIX)
    return tensors["x"], tensors["y"]
