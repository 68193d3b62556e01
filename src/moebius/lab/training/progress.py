"""The progress of one training: a bar on a terminal, a line that changes in a notebook, the log elsewhere."""

import logging
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moebius.lab.console import PrintableConsole
from moebius.lab.training.outcome import Event

log = logging.getLogger("moebius")


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """Shows the events of a training; on a terminal and in a notebook one line stays at its end.

    Elsewhere, as in a file or under pytest, nothing is printed: epochs go to the logger "moebius", at level INFO.

    Arguments:
        epochs: how many there are, if training does not end earlier.
        is_shown: False to print nothing anywhere.
        console: to print on; standard error unless given.
    """

    def __init__(self, epochs: int, is_shown: bool = True, console: Console | None = None):
        self.epochs = epochs
        self.console = PrintableConsole(stderr=True) if console is None else console
        self.begun = time.monotonic()
        self.last_line = ""
        self.held_out: dict[str, float | None] = {}
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        # rich draws in notebooks only where ipywidgets is installed.
        self.notebook = _NotebookLine() if is_shown and console is None and self.console.is_jupyter else None
        if is_shown and self.notebook is None and self.console.is_terminal and not self.console.is_dumb_terminal:
            columns = (
                TextColumn("{task.description}", style="cyan"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TextColumn("·", style="dim"),
                TimeRemainingColumn(),
                TextColumn("left", style="dim"),
            )
            # What callbacks print appears above the bar; into a file it goes as it would without one.
            redirects = sys.stdout.isatty()
            self.bar = Progress(*columns, console=self.console, transient=True, redirect_stdout=redirects)

    def __enter__(self) -> "ProgressDisplay":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            if self.last_line:
                text = f"{self.last_line} · {time.monotonic() - self.begun:,.1f} s"
                self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, event: Event) -> None:
        """Show an event."""
        if event.kind in ("note", "warning"):
            log.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s", event.text)
            return
        position = f"epoch {min(event.epoch, self.epochs)}/{self.epochs}"
        if event.kind == "epoch":
            self.held_out = {"validation_score": event.validation_score, "test_score": event.test_score}
        figures = describe_event(replace(event, **self.held_out))  # of the last finished epoch
        if event.kind == "epoch":
            self.last_line = f"{position} · {figures}"
            log.info("%s", self.last_line)
        if self.notebook is not None:
            self.notebook.show(f"{position} · {figures}")
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(position, total=event.steps, completed=event.step, figures=figures)
            self.bar.update(self.task, completed=event.step, description=position, figures=figures)


def describe_event(event: Event) -> str:
    """The figures of an event as one line.

    Example:
        >>> describe_event(Event("epoch", 1, 10, 20, score=0.5, loss=0.25, validation_score=0.75))
        'train accuracy 0.500, loss 0.250 · validation accuracy 0.750'
    """
    figures = f"train {event.score_name} {event.score:.3f}, loss {event.loss:.3f}"
    for split, score in (("validation", event.validation_score), ("test", event.test_score)):
        if score is not None:
            figures += f" · {split} {event.score_name} {score:.3f}"
    return figures


class _NotebookLine:
    """One line of a notebook's cell, which changes."""

    def __init__(self):
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self.handle.update({"text/plain": text}, raw=True)
