"""The exception tree. Every error states a rule, the value that breaks it, and a fix to paste.

The command line prints these without a traceback and exits with code 2.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moebius.kit.commands import move_aside


class MoebiusError(Exception):
    """Base class of the errors that a user can fix.

    Arguments:
        message: the rule and the value that breaks it.
        fix: what to do or type instead; None where no single fix exists.
    """

    def __init__(self, message: str, fix: str | None = None):
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # By default unpickling calls the class with the message, and some classes take other arguments.
        return _restore_error, (type(self), self.args, vars(self))

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\n  fix: {self.fix}"


def _restore_error(kind: type[MoebiusError], args: tuple[Any, ...], attributes: dict[str, Any]) -> MoebiusError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class ArgumentError(MoebiusError, ValueError):
    """An argument of a component breaks a rule.

    Arguments:
        argument: the argument's name; a recipe puts its path before it (`variants.hidden.gate.hidden`).
        rule: what must hold, as a clause ("needs at least one width").
        value: the value that breaks the rule.
        fix: what to type instead.
    """

    def __init__(self, argument: str, rule: str, value: object, fix: str | None = None):
        super().__init__(f"{argument}: {rule}, got {value!r}", fix)
        self.argument, self.rule, self.value = argument, rule, value

    def inside(self, path: str) -> "ArgumentError":
        """A copy of the error with `path` put before the argument's name."""
        return ArgumentError(f"{path}.{self.argument}", self.rule, self.value, self.fix)


class UnknownKindError(MoebiusError, LookupError):
    """No component, recipe or variant has this name; the fix names similar ones."""


class RecipeError(MoebiusError):
    """A recipe breaks one or more rules; the message lists all of them.

    Arguments:
        source: the recipe's file or name.
        problems: one line for each broken rule, beginning with the path of the key.
        fix: what to type instead.
    """

    def __init__(self, source: str, problems: Sequence[str], fix: str | None = None):
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems), fix)
        self.source, self.problems = source, tuple(problems)


class DataError(MoebiusError):
    """Rows or files are missing, corrupt, truncated or wrongly labelled; the message names file, row and reason."""


class StudyError(MoebiusError):
    """A study's folder is in use, cannot be written, or holds another study."""


class DamagedFileError(DataError, StudyError):
    """A file that moebius wrote is not as it was written.

    Arguments:
        path: of the file.
        reason: what shows it, as a clause.
        fix: what to do; None for the command that moves the file aside.
    """

    def __init__(self, path: Path, reason: str, fix: str | None = None):
        fix = fix or f"{move_aside(path)}    # then run the same command again"
        super().__init__(f"{path}: cannot be read, for it is damaged ({reason})", fix)
        self.path, self.reason = path, reason


class UnwritableError(StudyError, OSError):
    """A file could not be written; what was at its place before is still there.

    Arguments:
        path: of the file.
        number: the system's number of the error, of `errno`.
    """

    def __init__(self, path: Path, number: int):
        reasons = {
            errno.ENOSPC: ("the disk is full", "free space"),
            errno.EDQUOT: ("the quota of the disk is used up", "free space"),
            errno.EFBIG: ("the file is larger than the system allows", "raise the limit of file sizes (ulimit -f)"),
            errno.EROFS: ("the file system is read-only", "mount it for writing, or take another folder"),
            errno.EACCES: ("the folder may not be written", "allow it, or take another folder"),
            errno.EPERM: ("the folder may not be written", "allow it, or take another folder"),
            errno.EMFILE: ("the process has too many open files", "raise their limit (ulimit -n)"),
            errno.ENOENT: ("its folder is gone", "bring the folder back"),
            errno.EIO: ("the disk reports an error", "check the disk"),
        }
        reason, remedy = reasons.get(number, (os.strerror(number), "mend this"))
        message = f"{path}: cannot be written, for {reason}; what was written before is kept"
        super().__init__(message, f"{remedy}, then run the same command again: it goes on from there")
        self.path, self.errno = path, number


class TrainingError(MoebiusError):
    """Training cannot go on; where a loss is NaN or infinite, the message names the step, the term and the expert."""


class DivergedError(TrainingError):
    """A loss is NaN or infinite: a sweep counts such a point as the worst, other studies report a failed run."""


class LostProcessError(TrainingError, RuntimeError):
    """A process that trains the same model has ended, or takes no part, so that this one cannot go on."""


class MissingExtraError(MoebiusError, ImportError):
    """A component needs packages that only an extra installs; the fix is the command that installs the extra."""
