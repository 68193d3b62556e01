"""What one run has done so far, and the files and words that tell of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from moebius.kit.files import write_text
from moebius.lab.training.checkpoint import Progress, restore_weights, save_weights
from moebius.lab.training.outcome import Event
from moebius.lab.training.settings import Settings, Watch
from moebius.lab.training.timing import Timing
from moebius.lab.training.watch_state import WatchState, watch_state


class RunRecord:
    """The books of one run: where it stands, which epoch was best, what is written and told.

    Arguments:
        folder: of the run; `metrics.jsonl`, `timing.jsonl` and the best epoch's weights go there.
        settings: how it is trained.
        steps_per_epoch: of all its rows.
        held_out: whether there are rows that decide which epoch is best.
        listen: hears of progress.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        steps_per_epoch: int,
        held_out: bool,
        listen: Callable[[Event], None] = lambda event: None,
    ):
        self.folder, self.settings, self.steps_per_epoch = folder, settings, steps_per_epoch
        self.held_out, self.listen = held_out, listen
        self.watch = settings.watch or Watch()
        self.best_path = folder / "state" / "best.safetensors"
        self.timing = Timing(folder)
        self.progress = Progress()
        self.verdict = WatchState()

    def take_up(self, progress: Progress) -> None:
        """Go on from a checkpoint's progress."""
        self.progress = progress
        self.verdict = self._judge()
        self.tell("resumed")

    @property
    def over(self) -> bool:
        """Whether the last epoch is finished."""
        return self.progress.epoch >= self.settings.epochs or self.verdict.ends

    def count(self, rows: int, right: int) -> None:
        """A step is done."""
        self.progress.correct += right
        self.progress.batch += 1
        self.progress.step += 1
        self.progress.rows += rows

    def trained(self) -> dict[str, Any]:
        """The figures of the epoch under way, measured before each update."""
        progress = self.progress
        return {
            "accuracy": progress.correct / progress.rows,
            "loss": progress.terms["loss"] / progress.rows,
            "terms": {name: value / progress.rows for name, value in progress.terms.items() if name != "loss"},
        }

    def close_epoch(self, entry: dict[str, Any], model: nn.Module, rate: float) -> None:
        """Book the epoch under way as finished.

        Arguments:
            entry: its metrics.
            model: as the epoch leaves it; its weights are kept or replaced where held-out rows decide so.
            rate: images per second.
        """
        progress = self.progress
        progress.metrics.append(entry)
        progress.epoch += 1
        if self.held_out:
            self.verdict = self._judge()
            progress.best = self.verdict.best
            if progress.best == progress.epoch:
                save_weights(self.best_path, model)
            elif progress.best is not None and self.watch.restart:
                restore_weights(self.best_path, model)
        self.tell("epoch", rate, entry["test"]["accuracy"])
        progress.batch = progress.rows = progress.correct = 0
        progress.terms = {}
        self.write_metrics()

    def report(self, model: nn.Module) -> int:
        """The epoch that is reported; the model gets its weights."""
        if self.progress.best is None:
            return self.progress.epoch
        restore_weights(self.best_path, model)
        return self.progress.best

    def write_metrics(self) -> None:
        """Write one line per finished epoch."""
        lines = "".join(f"{json.dumps(one)}\n" for one in self.progress.metrics)
        write_text(self.folder / "metrics.jsonl", lines)

    def tell(self, kind: str, rate: float = math.nan, test_accuracy: float | None = None, text: str = "") -> None:
        """Tell the listener where the run stands."""
        progress = self.progress
        rows = max(progress.rows, 1)
        self.listen(
            Event(
                kind,
                epoch=progress.epoch + (kind != "epoch"),
                step=progress.step,
                steps=self.steps_per_epoch * self.settings.epochs,
                accuracy=progress.correct / rows,
                loss=progress.terms.get("loss", math.nan) / rows,
                images_per_second=rate,
                test_accuracy=test_accuracy,
                text=text,
            )
        )

    def _judge(self) -> WatchState:
        if not self.held_out:
            return WatchState()
        return watch_state([entry["validation"][self.watch.measure] for entry in self.progress.metrics], self.watch)
