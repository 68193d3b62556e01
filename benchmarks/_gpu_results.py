"""What a part of `gpu.py` has measured: a line of JSON for each item, written as it comes."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _compare import Measurement


class Results:
    """The results of one part, in a file of their own.

    Arguments:
        path: of the file; its lines are {item, state, figures, error, seconds, at}.
    """

    def __init__(self, path: Path):
        self.path = path

    def add(self, item: str, figures: Sequence[Measurement], seconds: float, error: str = "", **facts: Any) -> None:
        """Append a line.

        Arguments:
            item: its name.
            figures: that it has measured.
            seconds: that it took.
            error: why it is not done; "" where it is.
            facts: more about it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = "failed" if error else "done"
        at = time.strftime("%Y-%m-%dT%H:%M:%S")
        rows = [asdict(figure) for figure in figures]
        line = {"item": item, "state": state, "error": error, "seconds": round(seconds, 2), "at": at, **facts}
        # Whoever is ended while it writes leaves a last line that `lines` does not count.
        is_cut_off = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write("\n" * is_cut_off + json.dumps({**line, "figures": rows}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> dict[str, dict[str, Any]]:
        """The last line of each item."""
        if not self.path.exists():
            return {}
        values: dict[str, dict[str, Any]] = {}
        for text in self.path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            values[line["item"]] = line
        return values

    def is_done(self, item: str) -> bool:
        """Whether the item is finished, here or in an earlier call."""
        return self.lines().get(item, {}).get("state") == "done"
