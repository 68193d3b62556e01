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


def move_aside(*paths: Path) -> str:
    """The command that gives damaged files or folders other names beside them, which are free; nothing is lost.

    Example:
        >>> move_aside(Path("my runs/seed-1"))
        "mv 'my runs/seed-1' 'my runs/seed-1.damaged'"
    """
    # A relative name may begin with a dash, which would be an option.
    places = [f"./{path}" if str(path).startswith("-") else str(path) for path in paths]
    return " && ".join(command("mv", place, place + aside_ending(place)) for place in places)


def aside_ending(place: str | Path) -> str:
    """What a damaged file or folder gets behind its name when it is moved aside, such that the name is free.

    Example:
        >>> aside_ending("runs/seed-1")
        '.damaged'
    """
    endings = chain([".damaged"], (f".damaged-{number}" for number in count(2)))
    return next(end for end in endings if not os.path.lexists(f"{place}{end}"))


def beside(path: Path, ending: str = "-2") -> str:
    """The quoted path of a folder beside another one.

    Example:
        >>> beside(Path("my runs"))
        "'my runs-2'"
    """
    return shlex.quote(f"{path}{ending}")
