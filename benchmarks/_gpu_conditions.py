"""What every part of `gpu.py` needs to know."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _compare import Measurement

# Measures something; the mapping has facts beside the figures.
Item = Callable[[], tuple[list[Measurement], dict[str, Any]]]


@dataclass(frozen=True)
class Conditions:
    """How a part runs.

    Arguments:
        dry: on the CPU at tiny shapes, Triton interpreted; the figures then mean nothing.
        ends: the moment, in seconds as `time.time()` has them, at which the part is ended.
        folder: of results and studies.
        data_dir: of data sets, for the studies; None where none is at hand.
        workers: processes that train at a time in a study.
    """

    dry: bool
    ends: float
    folder: Path
    data_dir: Path | None = None
    workers: int = 16

    @property
    def device(self) -> str:
        """Where to compute."""
        return "cpu" if self.dry else "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the part is ended."""
        return self.ends - time.time()
