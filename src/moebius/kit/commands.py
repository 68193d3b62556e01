"""Commands in the fixes of errors: a shell takes them as they stand, whatever a folder is called."""

import os
import shlex
from itertools import chain, count
from pathlib import Path


def command(*words: object) -> str:
    """A command for a POSIX shell; words with spaces and signs of the shell are quoted.

    Example:
        >>> command("moebius", "job", Path("my runs"))
        "moebius job 'my runs'"
    """
    return shlex.join(map(str, words))


def move_aside(path: Path) -> str:
    """The command that gives a damaged file or folder another name beside it, which is free; nothing is lost.

    Example:
        >>> move_aside(Path("my runs/seed-1"))
        "mv 'my runs/seed-1' 'my runs/seed-1.damaged'"
    """
    names = chain([".damaged"], (f".damaged-{number}" for number in count(2)))
    # A relative name may begin with a dash, which would be an option.
    place = f"./{path}" if str(path).startswith("-") else str(path)
    return command("mv", place, next(place + end for end in names if not os.path.lexists(place + end)))


def beside(path: Path, ending: str = "-2") -> str:
    """The quoted path of a folder beside another one.

    Example:
        >>> beside(Path("my runs"))
        "'my runs-2'"
    """
    return shlex.quote(f"{path}{ending}")
