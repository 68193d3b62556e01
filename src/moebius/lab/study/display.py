"""The progress of a study while it runs: bars on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from moebius.kit.errors import MoebiusError, TrainingError
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event


class Display(AbstractContextManager["Display"]):
    """Shows the progress of runs.

    Arguments:
        console: to print on.
        total: number of runs of the study.
        done: how many of them are finished already.
        cohorts: runs that train together, which share a bar.
    """

    def __init__(self, console: Console, total: int, done: int, cohorts: Sequence[Sequence[RunSpec]] = ()):
        self.console, self.total, self.done, self.done_before = console, total, done, done
        self.begun = time.monotonic()
        self.failures: list[tuple[RunSpec, MoebiusError]] = []
        self.share: dict[str, float] = {}
        self.starts: dict[str, tuple[float, int]] = {}
        self.bars: dict[str, TaskID] = {}
        # Of each run: its last event, the label of its bar, and the runs that share the bar and have not ended.
        self.last_events: dict[str, Event] = {}
        self.labels: dict[str, str] = {}
        self.bar_runs: dict[str, list[str]] = {}
        for cohort in cohorts:
            names = [run.name for run in cohort]
            self.labels |= dict.fromkeys(names, f"{names[0]} and {len(names) - 1} more")
            self.bar_runs |= dict.fromkeys(names, names)
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

    def show(self, run: RunSpec, event: Event) -> None:
        """Show an event of a run."""
        epochs = run.training["epochs"]
        epoch = min(event.epoch, epochs)  # a run that was killed after its last step resumes behind the last epoch
        if event.kind in ("note", "warning"):
            self._print(f"{run.name}: {event.text}")
            return
        if event.kind == "resumed":
            self._print(f"resumed {run.name} at epoch {epoch} step {event.step}")
        now = time.monotonic()
        begun, first_step = self.starts.setdefault(run.name, (now, event.step))
        self.share[run.name] = event.step / event.steps
        seconds, steps = now - begun, event.step - first_step
        left = seconds / steps * (event.steps - event.step) if steps else math.nan
        rate = "" if math.isnan(event.images_per_second) else f" · {event.images_per_second:,.0f} images/s"
        figures = f"{event.score_name} {event.score:.3f} loss {event.loss:.3f}{rate}"
        if self.live is not None:
            self._draw(run.name, event, f"epoch {epoch}/{epochs}", rate, left)
        elif event.kind == "epoch":
            # Where rows are held out they choose, and nobody needs to see the test rows before the end.
            score = event.test_score if event.validation_score is None else event.validation_score
            tested = f" · {'test' if event.validation_score is None else 'held out'} {score:.3f}"
            limit = "at most " * bool((run.training.get("watch") or {}).get("patience"))
            self._print(f"{run.name} epoch {epoch}/{epochs} · train {figures}{tested} · {limit}{_clock(left)} left")

    def _draw(self, name: str, event: Event, position: str, rate: str, left: float) -> None:
        """Move the bar of a run, or of its cohort, which shows the mean over its runs."""
        self.last_events[name] = event
        label = self.labels.setdefault(name, name)
        runs = self.bar_runs.setdefault(name, [name])
        events = [self.last_events[run] for run in runs if run in self.last_events]
        score = math.fsum(event.score for event in events) / len(events)
        loss = math.fsum(event.loss for event in events) / len(events)
        mean = "mean " * (len(events) > 1)
        text = f"{position} · {mean}{events[0].score_name} {score:.3f} loss {loss:.3f}{rate}"
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
        self._print(f"finished {run.name}, {self._count()}")

    def fail(self, run: RunSpec, error: MoebiusError) -> None:
        """Show at once that a run has failed; the others go on."""
        self.failures.append((run, error))
        self._end(run.name)
        self._print(f"failed {run.name}: {error.message}")

    def raise_failures(self, except_of: Collection[str] = ()) -> None:
        """Raise one error that names all runs that failed, if there are any but these.

        Raises:
            TrainingError: with the fix of the first.
        """
        failures = [(run, error) for run, error in self.failures if run.name not in except_of]
        if failures:
            lines = [f"{run.name}: {error.message}" for run, error in failures]
            raise TrainingError("\n".join(lines), failures[0][1].fix)

    def _end(self, name: str) -> None:
        """Forget a run, and remove its bar if it was the last one that shared it."""
        self.share.pop(name, None)
        self.last_events.pop(name, None)
        runs = self.bar_runs.get(name, [name])
        if name in runs:
            runs.remove(name)
        label = self.labels.get(name, name)
        if self.live is not None and not runs and label in self.bars:
            self.runs.remove_task(self.bars.pop(label))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        return f"{self.done} of {self.total} runs"

    def _finished_share(self) -> float:
        return self.done + sum(self.share.values(), 0.0)

    def _left(self) -> float:
        share = self._finished_share() - self.done_before
        seconds = time.monotonic() - self.begun
        return seconds / share * (self.total - self._finished_share()) if share > 0 else math.nan


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{_clock(task.fields['left'])} left", style="dim")


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "–:––"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
