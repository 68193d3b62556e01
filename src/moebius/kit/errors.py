"""The exception tree. Every error states the rule, the value that breaks it and a fix to paste.

The command line prints these without a traceback and exits with code 2.
"""

from collections.abc import Sequence
from typing import Any


class MoebiusError(Exception):
    """Base of all errors that a user can mend.

    Arguments:
        message: the rule and the value that breaks it.
        fix: what to do or to type instead, if there is one thing to do.
    """

    def __init__(self, message: str, fix: str | None = None):
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with the message, and some classes take other arguments.
        return _restored, (type(self), self.args, vars(self))

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\n  fix: {self.fix}"


def _restored(kind: type[MoebiusError], args: tuple[Any, ...], fields: dict[str, Any]) -> MoebiusError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class ArgumentError(MoebiusError, ValueError):
    """An argument of a component breaks a rule.

    Arguments:
        argument: its name; inside a recipe the path to it is put before (`variants.hidden.gate.hidden`).
        rule: what must hold, as a clause ("needs at least one width").
        value: what was given.
        fix: what to type instead.
    """

    def __init__(self, argument: str, rule: str, value: object, fix: str | None = None):
        super().__init__(f"{argument}: {rule}, got {value!r}", fix)
        self.argument, self.rule, self.value = argument, rule, value

    def inside(self, path: str) -> "ArgumentError":
        """The same error with `path` put before the argument's name."""
        return ArgumentError(f"{path}.{self.argument}", self.rule, self.value, self.fix)


class UnknownKindError(MoebiusError, LookupError):
    """No component, recipe or variant has this name; the message says which names come close."""


class RecipeError(MoebiusError):
    """A recipe breaks one or more rules; all of them are reported together.

    Arguments:
        source: the recipe's file or name.
        problems: one line each, beginning with the path of the key.
    """

    def __init__(self, source: str, problems: Sequence[str], fix: str | None = None):
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems), fix)
        self.source, self.problems = source, tuple(problems)


class DataError(MoebiusError):
    """Rows or files are missing, corrupt, truncated or wrongly labelled; names file, row and reason."""


class StudyError(MoebiusError):
    """A study's folder cannot be used: busy, unwritable, or it holds another study."""


class TrainingError(MoebiusError):
    """Training cannot go on: a loss is NaN or infinite; names the step, the term and the expert."""


class MissingExtraError(MoebiusError, ImportError):
    """A name needs packages that an extra of the distribution brings; the fix is the line that installs it."""
