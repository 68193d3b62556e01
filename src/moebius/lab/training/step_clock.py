"""When the figures of steps are read, and when a checkpoint is due."""

import time

from moebius.lab.training.processes import Processes

# Seconds between two events, and so between two readings of the figures that steps leave on the device.
EVENT_SECONDS = 0.2


class StepClock:
    """Tells after each step of an epoch whether to read figures and whether to save.

    The first step is saved at once: whoever saw a run train finds it resumable. Of several processes the first one
    decides, and how many steps there are until the next decision, so that most steps ask nobody.

    Arguments:
        checkpoint_seconds: between two checkpoints.
        processes: that train together.
        runs: how many take each step.
        rows: of each run in the epoch so far.
        seconds_before: of a run, that the epoch took before it was interrupted.
    """

    def __init__(
        self, checkpoint_seconds: float | int, processes: Processes, runs: int, rows: int, seconds_before: float
    ):
        self.checkpoint_seconds, self.processes = checkpoint_seconds, processes
        self.runs, self.rows_before, self.seconds_before = runs, rows, seconds_before
        self.begun = self.last_save = self.last_reading = time.monotonic()
        self.steps_since, self.steps_until = 0, 1

    def measure(self, rows: int) -> tuple[float, float]:
        """Seconds of the epoch, and rows of all runs in a second, where each run has had `rows`.

        The seconds are a run's share: the shares of all runs add up to the time that has passed.
        """
        seconds = time.monotonic() - self.begun
        return self.seconds_before + seconds / self.runs, self.runs * (rows - self.rows_before) / seconds

    def due(self, step: int) -> tuple[bool, bool]:
        """Whether figures are read after a step (its number from 1), and whether the state is saved."""
        self.steps_since += 1
        if self.processes.are_several and step != 1 and self.steps_since < self.steps_until:
            return False, False
        now = time.monotonic()
        saves = step == 1 or now - self.last_save > self.checkpoint_seconds
        reads = saves or now - self.last_reading > EVENT_SECONDS or self.processes.are_several
        if self.processes.are_several:
            seconds = max(now - self.last_reading, 1e-9) / self.steps_since
            steps = max(1, int(min(EVENT_SECONDS, self.checkpoint_seconds) / seconds))
            saves, self.steps_until = self.processes.first((saves, steps))
        if reads:
            self.last_reading, self.steps_since = now, 0
        if saves:
            self.last_save = now
        return reads, saves
