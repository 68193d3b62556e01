"""The times of epochs, in a file apart: metrics and checkpoints of two equal runs are equal to the bit."""

import json
import math
from pathlib import Path
from typing import Any

from moebius.kit.files import parse_json, read_sealed, write_text
from moebius.kit.seals import SEAL, sealed


class Timing:
    """The times of one run's epochs, in `timing.jsonl` of its folder.

    Arguments:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.path = folder / "timing.jsonl"

    def entries(self) -> list[dict[str, Any]]:
        """The logged entries: epoch (from 1), seconds, images_per_second."""
        content = read_sealed(self.path) if self.path.exists() else b""
        entries = [parse_json(self.path, line) for line in content.splitlines()]
        return [{key: value for key, value in entry.items() if key != "digest"} for entry in entries]

    def log(self, epoch: int, seconds: float, rate: float) -> None:
        """Log an epoch; entries of it and of later epochs are replaced."""
        entries = [entry for entry in self.entries() if entry["epoch"] < epoch]
        entries.append({"epoch": epoch, "seconds": seconds, "images_per_second": rate})
        lines = [{"digest": SEAL, **entries[0]}, *entries[1:]]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        write_text(self.path, sealed(text.encode()).decode())

    def before(self, epoch: int) -> float:
        """Seconds that an epoch had taken when the run was interrupted in it."""
        return math.fsum(entry["seconds"] for entry in self.entries() if entry["epoch"] == epoch)
