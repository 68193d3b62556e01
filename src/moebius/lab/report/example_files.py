"""Reading a run's `examples.safetensors`, as far as it holds rows of experts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open

from moebius.kit.errors import StudyError
from moebius.kit.seals import check_seal
from moebius.lab.report.picked_rows import KINDS
from moebius.lab.report.run_fix import rewrite_fix


@dataclass(frozen=True, eq=False)
class ExampleRows:
    """Test rows that show what experts of the first gate do.

    Arguments:
        rows: positions in the test rows.
        experts: whose each of them is.
        kinds: of `KINDS`.
        images: the pictures; None for other rows.
        columns: names of the cells.
        cells: of each row, as text.
    """

    rows: Int[np.ndarray, " N"]
    experts: Int[np.ndarray, " N"]
    kinds: tuple[str, ...]
    images: UInt8[np.ndarray, "N channels height width"] | None
    columns: tuple[str, ...] = ()
    cells: Sequence[Sequence[str]] = ()

    def places(self, expert: int, kind: str) -> list[int]:
        """Places of the rows of a kind of an expert, the most telling first."""
        return [place for place, each in enumerate(self.kinds) if each == kind and self.experts[place] == expert]


def read_examples(run: Path) -> ExampleRows | None:
    """The rows in a run's folder; None where it has none of experts.

    Raises:
        StudyError: the file cannot be read.
    """
    path = run / "examples.safetensors"
    if not path.is_file():
        return None
    check_seal(path, rewrite_fix(path))
    try:
        with safe_open(path, framework="numpy") as file:
            names: set[str] = set(file.keys())
            if not {"rows", "experts", "kinds"} <= names:
                return None
            texts: Mapping[str, str] = file.metadata() or {}
            rows, experts, numbers = (file.get_tensor(name) for name in ("rows", "experts", "kinds"))
            images = file.get_tensor("images") if "images" in names else None
        table = json.loads(texts.get("cells", "{}"))
        kinds = tuple(KINDS[number] for number in numbers.tolist())
        if not rows.shape == experts.shape == (len(kinds),) or (images is not None and len(images) != len(kinds)):
            raise ValueError("its tensors have unlike lengths")
        if images is not None and images.dtype != np.uint8:
            raise ValueError("its images are no bytes")
        columns, cells = table.get("columns", []), table.get("rows", [])
        if not all(isinstance(cell, str) for line in (columns, *cells) for cell in line):
            raise ValueError("its cells are no texts")
    except (SafetensorError, OSError, ValueError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read ({error})", rewrite_fix(path)) from None
    return ExampleRows(rows, experts, kinds, images, tuple(columns), cells)
