"""The times of epochs, in a file apart: metrics and checkpoints of two equal runs are equal to the bit."""

import json
from pathlib import Path
from typing import Any

from moebius.kit.files import write_text


class Timing:
    """The times of one run's epochs, in `timing.jsonl` of its folder.

    Arguments:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.path = folder / "timing.jsonl"

    def entries(self) -> list[dict[str, Any]]:
        """The logged entries: epoch (from 1), seconds, images_per_second."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def log(self, epoch: int, seconds: float, rate: float) -> None:
        """Log an epoch; entries of it and of later epochs are replaced."""
        entries = [entry for entry in self.entries() if entry["epoch"] < epoch]
        entries.append({"epoch": epoch, "seconds": seconds, "images_per_second": rate})
        write_text(self.path, "".join(f"{json.dumps(entry)}\n" for entry in entries))

    def before(self, epoch: int) -> float:
        """Seconds that an epoch had taken when the run was interrupted in it."""
        return sum(entry["seconds"] for entry in self.entries() if entry["epoch"] == epoch)
