"""What hears of the runs of a study while they train."""

from typing import Protocol, runtime_checkable

from moebius.kit.errors import MoebiusError
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event


@runtime_checkable
class Listener(Protocol):
    """Hears of every event of every run, and of its end: for each run that is begun, `finish` or `fail` is called."""

    def show(self, run: RunSpec, event: Event) -> None:
        """Hear of an event."""

    def finish(self, run: RunSpec) -> None:
        """Hear that a run has left all its files."""

    def fail(self, run: RunSpec, error: MoebiusError) -> None:
        """Hear that a run cannot be finished; the others go on."""
