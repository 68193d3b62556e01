"""Runs mutated inputs through an entry and counts what comes of them."""

import contextlib
import random
import resource
import signal
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moebius.kit.errors import MoebiusError

# Of the process: a machine that is busy with other work makes none of them longer.
MOST_SECONDS = 10
# Of the clock, for a call that waits without computing. A process may be stopped for minutes.
MOST_WAITING = 540


class Entry(ABC):
    """A way into moebius, with inputs in a folder of its own.

    Arguments:
        folder: empty, for whatever the entry writes.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @abstractmethod
    def mutate(self, draw: random.Random) -> str:
        """Make the next input; what it is, in a line."""

    @abstractmethod
    def call(self) -> None:
        """Hand the input to moebius.

        Raises:
            MoebiusError: it is refused.
        """


class Hang(BaseException):
    """A call takes too long."""


@dataclass
class Counts:
    """What came of the inputs of an entry.

    Arguments:
        worked: inputs that moebius took.
        refused: inputs that ended in a MoebiusError with a message.
        failures: of each other input what it is and what it ended in.
        seconds: of the process, for the slowest input.
        mebibytes: by which the peak of the memory grew.
    """

    worked: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    mebibytes: float = 0.0

    @property
    def inputs(self) -> int:
        """All inputs."""
        return self.worked + self.refused + len(self.failures)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A call that may compute for ten seconds.

    Raises:
        Hang: it takes longer.
    """

    def stop(number: int, frame: object) -> None:
        raise Hang(f"more than {MOST_SECONDS} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, MOST_SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, MOST_WAITING)}
    before = {number: signal.signal(number, stop) for number in timers}
    try:
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def try_inputs(entry: Entry, seed: int, count: int) -> Counts:
    """Count what comes of so many inputs, which the seed tells."""
    draw, counts = random.Random(seed), Counts()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        text = entry.mutate(draw)
        begun = time.process_time()
        try:
            with warnings.catch_warnings(), limited():
                warnings.simplefilter("ignore")
                entry.call()
            counts.worked += 1
        except MoebiusError as error:
            if error.message.strip() and len(error.message) < 20_000:
                counts.refused += 1
            else:
                counts.failures.append(f"{text}: an error of {len(error.message)} characters")
        except (Exception, Hang) as error:
            places = [
                f"{Path(place.filename).name}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)
            ]
            reason = f"{type(error).__name__}: {str(error)[:200]!r}"
            counts.failures.append(f"{text}: {reason} at {' '.join(places[-4:])}")
        counts.seconds = max(counts.seconds, time.process_time() - begun)
    counts.mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    return counts
