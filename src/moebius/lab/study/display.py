"""What a person sees while a study runs: bars on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from moebius.kit.errors import MoebiusError
from moebius.lab.study.plan import RunSpec
from moebius.lab.training.outcome import Event


class Display(AbstractContextManager["Display"]):
    """Shows runs as they go on.

    Arguments:
        console: where.
        total: number of runs of the study.
        done: how many of them are finished already.
        stacks: runs that train as one, which share a bar.
    """

    def __init__(self, console: Console, total: int, done: int, stacks: Sequence[Sequence[RunSpec]] = ()):
        self.console, self.total, self.done, self.before = console, total, done, done
        self.begun = time.monotonic()
        self.share: dict[str, float] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.bars: dict[str, TaskID] = {}
        # Of each run the last event, what its bar is called, and the runs that share it and have not ended.
        self.last: dict[str, Event] = {}
        self.labels: dict[str, str] = {}
        self.company: dict[str, list[str]] = {}
        for stack in stacks:
            names = [run.name for run in stack]
            self.labels |= dict.fromkeys(names, f"{names[0]} and {len(names) - 1} more")
            self.company |= dict.fromkeys(names, names)
        self.live: Live | None = None
        if console.is_terminal:
            self.study = Progress(
                TextColumn("[bold]{task.description}"), BarColumn(), _TimeLeft(), console=console, expand=False
            )
            self.study_bar = self.study.add_task(self._count(), total=total, completed=done, left=math.nan)
            self.runs = Progress(
                TextColumn("{task.description}", style="cyan"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
                _TimeLeft(),
                console=console,
            )
            self.live = Live(Group(self.runs, self.study), console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> "Display":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live is not None:
            self.live.stop()

    def hear(self, run: RunSpec, event: Event) -> None:
        """Show an event of a run."""
        epochs = run.training["epochs"]
        epoch = min(event.epoch, epochs)  # a run that was killed after its last step resumes behind the last epoch
        if event.kind == "note":
            self._line(f"{run.name}: {event.text}")
            return
        if event.kind == "resumed":
            self._line(f"resumed {run.name} at epoch {epoch} step {event.step}")
        now = time.monotonic()
        begun, first = self.first.setdefault(run.name, (now, event.step))
        self.share[run.name] = event.step / event.steps
        spent, made = now - begun, event.step - first
        left = spent / made * (event.steps - event.step) if made else math.nan
        rate = "" if math.isnan(event.images_per_second) else f" · {event.images_per_second:,.0f} images/s"
        figures = f"accuracy {event.accuracy:.3f} loss {event.loss:.3f}{rate}"
        if self.live is not None:
            self._draw(run.name, event, f"epoch {epoch}/{epochs}", rate, left)
        elif event.kind == "epoch":
            test = f" · test {event.test_accuracy:.3f}"
            most = "at most " * bool((run.training.get("watch") or {}).get("patience"))
            self._line(f"{run.name} epoch {epoch}/{epochs} · train {figures}{test} · {most}{_clock(left)} left")

    def _draw(self, name: str, event: Event, where: str, rate: str, left: float) -> None:
        """Move the bar of a run, or of its stack, which shows the mean over its runs."""
        self.last[name] = event
        label = self.labels.setdefault(name, name)
        runs = self.company.setdefault(name, [name])
        heard = [self.last[one] for one in runs if one in self.last]
        accuracy, loss = (math.fsum(getattr(one, what) for one in heard) / len(heard) for what in ("accuracy", "loss"))
        mean = "mean " * (len(heard) > 1)
        text = f"{where} · {mean}accuracy {accuracy:.3f} loss {loss:.3f}{rate}"
        if label not in self.bars:
            self.bars[label] = self.runs.add_task(label, total=event.steps, text=text, left=left)
        self.runs.update(self.bars[label], completed=event.step, text=text, left=left)
        self.study.update(self.study_bar, completed=self._finished_share(), left=self._left())

    def finish(self, run: RunSpec) -> None:
        """Show that a run is finished."""
        self.done += 1
        self._end(run.name)
        if self.live is not None:
            self.study.update(
                self.study_bar, description=self._count(), completed=self._finished_share(), left=self._left()
            )
        self._line(f"finished {run.name}, {self._count()}")

    def fail(self, run: RunSpec, error: MoebiusError) -> None:
        """Show that a run has failed, as soon as it has: the others go on."""
        self._end(run.name)
        self._line(f"failed {run.name}: {error.message}")

    def _end(self, name: str) -> None:
        """Forget a run, and take its bar away if nobody shares it any more."""
        self.share.pop(name, None)
        self.last.pop(name, None)
        runs = self.company.get(name, [name])
        if name in runs:
            runs.remove(name)
        label = self.labels.get(name, name)
        if self.live is not None and not runs and label in self.bars:
            self.runs.remove_task(self.bars.pop(label))

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        return f"{self.done} of {self.total} runs"

    def _finished_share(self) -> float:
        return self.done + sum(self.share.values(), 0.0)

    def _left(self) -> float:
        made = self._finished_share() - self.before
        return (time.monotonic() - self.begun) / made * (self.total - self._finished_share()) if made > 0 else math.nan


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{_clock(task.fields['left'])} left", style="dim")


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "–:––"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
